"""Where to cut and who may learn from it: blocks, splits, folds, chip windows, statistics."""
