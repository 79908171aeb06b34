"""Vectors, points or rasters with a class attribute -> class codes on a Grid."""
