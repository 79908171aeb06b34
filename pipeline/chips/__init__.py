"""Where to cut, and who may learn from it: windows, blocks, folds, statistics."""
