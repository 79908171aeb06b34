"""Accuracy of maps, in two halves: ``sample_*`` draws units to interpret, ``assess_*`` makes figures of them.

sample: strata, allocation, pixels and squares, draw, design, files. assess: reference, frame, design, estimators, map,
rasters, compare, change. Both read maps through ``class_maps`` and legends of others through ``crosswalk``.
"""
