"""Who may learn from what: blocks, parts, folds, buffer, and the check that nothing leaks."""
