"""What a user can set about who may learn: the parts of a job, and the folds of a cross-validation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.errors import ConfigError
from pipeline.scenes.settings import Names  # noqa: TC001 - pydantic needs it at run time
from pipeline.settings import Fraction, Settings

Method = Literal["forest", "forest_neighbourhood", "network"]
METHODS: tuple[Method, ...] = ("forest", "forest_neighbourhood", "network")
FOLD_KINDS = ("blocks", "polygons")
FOLDS = (*FOLD_KINDS, "both", "block", "scene")
SHARES = (25, 50, 75, 100)
ALL = 100  # per cent


class SplitSettings(Settings):
    """Which polygons train, stop and test the model: whole polygons, by spatial blocks."""

    block_m: float | None = Field(
        None, gt=0, description="Side of a spatial block in metres. Default: from the label layout."
    )
    buffer_m: float | None = Field(
        None,
        ge=0,
        description="Distance kept free between the parts, in metres. Default: half a chip; of a continuous target, "
        "whose samples are learned one by one, the 4 pixels that their features reach.",
    )
    train: Fraction = Field(0.6, description="Share of the labels that trains.")
    validation: Fraction = Field(0.2, description="Share that chooses when to stop and calibrates the confidence.")
    test: Fraction = Field(0.2, description="Share that is only used for the figures at the end.")
    seed: int = Field(0, ge=0, description="Seed of the assignment.")

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Of train, validation and test."""
        return self.train, self.validation, self.test

    @model_validator(mode="after")
    def _sum(self) -> SplitSettings:
        total = sum(self.fractions)
        if abs(total - 1) > 1e-6:  # noqa: PLR2004 - rounding of three decimals
            raise ValueError(f"train + validation + test is {total:g}; expected 1")
        return self


class CrossvalSettings(Settings):
    """How a job is cross-validated."""

    folds: int = Field(5, description="Number of folds of blocks or polygons.")
    by: str = Field(
        "blocks",
        description="blocks (with a buffer), polygons or both; block or scene leaves one out at a time. Of a "
        "continuous target: blocks, or the attribute of labels.value.group, such as station.",
    )
    methods: Names = Field(METHODS, min_length=1, description="Comma-separated: forest, forest_neighbourhood, network.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Seeds of the folds; each draws them anew.")
    only_folds: tuple[int, ...] = Field((), description="Numbers of the folds to do now, from 1; the others later.")
    random_folds: int = Field(
        1, ge=0, description="Folds of random pixels, to see how much a leaky split flatters; 0 for none."
    )
    shares: tuple[int, ...] = Field(
        SHARES, min_length=1, description="Of the learning curve: per cent of the training polygons."
    )
    leave_out_single: bool = Field(default=False, description="Go on without classes of one polygon.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the folds are made of."""
        return FOLD_KINDS if self.by == "both" else (self.by,)

    @property
    def random_of(self) -> int:
        """Of how many folds of random pixels ``random_folds`` are done."""
        return max(self.folds, 2)

    def check(self) -> None:
        """Refuse what no folds can be made of.

        Raises:
            ConfigError: an unknown method, more random folds than there are, or a share that is not 1..100.
        """
        if self.by not in FOLDS:
            raise ConfigError("option --by", got=self.by, expected=", ".join(FOLDS))
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ConfigError("option --methods", got=", ".join(unknown), expected=", ".join(METHODS))
        if self.random_folds > self.random_of:
            raise ConfigError("option --random-folds", got=self.random_folds, expected=f"0..{self.random_of}")
        if not all(1 <= share <= ALL for share in self.shares):
            raise ConfigError("option --shares", got=self.shares, expected="per cent, 1..100")
