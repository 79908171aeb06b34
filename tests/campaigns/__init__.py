"""Long campaigns against the whole program; ``make fuzz`` runs them, short ones are part of ``make test``."""
