"""What a model and its map are worth, and where they fail: calibration, area of applicability, failures, audit."""
