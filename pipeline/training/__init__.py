"""From chips to a trained model, and the random forest it must beat."""
