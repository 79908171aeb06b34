"""What experts are trained with: their settings, and the moment after which nothing new is begun."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass, field

from pydantic import Field

from pipeline.errors import ModelWarning
from pipeline.settings import Settings

_LOG = logging.getLogger(__name__)

# Trees of the forest that the project compares with; Breiman (2001), Random forests, Machine Learning 45, 5-32, and
# Belgiu & Dragut (2016), Random forest in remote sensing, ISPRS J. 114, 24-31: 500 is what most studies use.
FOREST_TREES = 500
# With fewer polygons held-out figures say more about the polygons than about the experts: shares stay as they are.
ENOUGH_POLYGONS = 100
# Of the time limit: what experts and their soft labels may take, and what the network of pixels gets at least, whatever
# was taken before: of one step a map was right in 13 %.
EXPERTS_TIME, LEAST_TIME = 0.6, 0.1


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


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock."""

    at_s: float = float("inf")  # The moment, in seconds of ``time.monotonic``
    # What was cut short because of it, for the record; filled in by :meth:`cuts`
    cut: list[str] = field(default_factory=list)

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment so many seconds from now."""
        return cls(time.monotonic() + seconds)

    def share(self, part: float) -> Deadline:
        """The moment when ``part`` (0..1) of the time that is left has passed; both keep one record."""
        return Deadline(time.monotonic() + part * self.left_s, self.cut) if self.at_s < float("inf") else self

    def at_least(self, seconds: float) -> Deadline:
        """This moment, or that in so many seconds where it comes later; both keep one record."""
        return Deadline(max(self.at_s, time.monotonic() + seconds), self.cut)

    @property
    def left_s(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(self.at_s - time.monotonic(), 0.0)

    def warn(self, key: str, *, seconds: float) -> None:
        """ModelWarning of all that was cut short by the limit of a ``key``: a model as a file, and not as a model."""
        if self.cut:
            text = f"{key} ({seconds:g} s) ended first: {', '.join(self.cut)} cut short"
            what = "the model is worse than it could be, and another on each run: set a higher limit"
            warnings.warn(f"{text}; {what}", ModelWarning, stacklevel=3)

    def cuts(self, what: str) -> bool:
        """Whether the moment has passed, so that ``what`` is not begun; noted once, and logged."""
        if self.left_s > 0:
            return False
        if what not in self.cut:
            self.cut.append(what)
            _LOG.info("time limit: %s cut short", what)
        return True
