"""Accuracy of maps, in two halves: ``sample_*`` draws units to interpret, ``assess_*`` makes figures of them.

sample: strata, allocation, pixels, squares, draw, design. assess: reference, frame, design, estimators, map, rasters,
compare, sequential, assisted, zone. Both read maps through ``class_maps`` and legends of others through ``crosswalk``.
"""
