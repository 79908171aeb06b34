"""Forecasts of a raster series: the next steps of every cell, with intervals, beside rules that anyone could apply."""
