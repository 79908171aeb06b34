"""How good a map is, with the sampling design that makes the figures publishable."""
