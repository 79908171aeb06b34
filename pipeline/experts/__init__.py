"""Experts: scikit-learn classifiers of labelled pixels or chips, and the mixture of them; no torch."""
