"""ExpertSettings: the scikit-learn classifiers whose mixture gives networks their soft labels."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings import Settings

# Trees of the forest that the project compares with; Breiman (2001), Random forests, Machine Learning 45, 5-32, and
# Belgiu & Dragut (2016), Random forest in remote sensing, ISPRS J. 114, 24-31: 500 is what most studies use.
FOREST_TREES = 500
# With fewer polygons held-out figures say more about the polygons than about the experts: shares stay as they are.
ENOUGH_POLYGONS = 100


class ExpertSettings(Settings):
    """scikit-learn classifiers of labelled pixels, or of chips' statistics; networks learn their soft labels."""

    enabled: bool = Field(default=True, description="Off: networks learn from the labels alone.")
    trees: int = Field(100, ge=1, description="Trees of each expert that has trees.")
    soft_pixels: int = Field(
        100_000,
        ge=1,
        description="Unlabelled pixels that get soft labels, about; with head chip: mixtures of two chips, at most "
        "20,000.",
    )
