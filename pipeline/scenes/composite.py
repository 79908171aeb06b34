"""A cloud-masked composite of several dates, streamed window by window.

- ``median``: per band, over the valid dates. Robust, but the bands of a pixel may come from different dates.
- ``medoid``: the date whose spectrum is nearest to those of all other valid dates (smallest sum of Euclidean
  distances), so a pixel's bands belong together. Source: Flood (2013), Seasonal composite Landsat TM/ETM+ images using
  the medoid (a multi-dimensional median), Remote Sensing 5(12):6481-6500.
- ``greenest``: the date of the highest NDVI. Source: Holben (1986), Characteristics of maximum-value composite images
  from temporal AVHRR data, International Journal of Remote Sensing 7(11):1417-1434.

A pixel is valid where at least ``min_dates`` dates are valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pipeline.errors import SceneError
from pipeline.raster import Raster
from pipeline.scenes.derived import Derived, DerivedReader, common_input, in_time_order
from pipeline.scenes.indices import compute_index, find_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.scenes.indices import Index
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source

Method = Literal["median", "medoid", "greenest"]


@dataclass(frozen=True)
class CompositeScene(Derived):
    """One picture of several dates; give it to ``open_reader`` like a scene."""

    method: Method  # See the module
    min_dates: int  # Fewest valid dates of a valid pixel

    def ledger(self) -> dict[str, object]:
        """The rule of the composite and the ledger of every date."""
        return self.dates_ledger(kind="composite") | {"method": self.method, "min_dates": self.min_dates}

    def open(self) -> Reader:
        """A reader; holds dates x bands of one window in memory."""
        greenness = _greenness(self.inputs[0]) if self.method == "greenest" else None
        compute = partial(_composed, composite=self, greenness=greenness)
        return DerivedReader(self.grid, self.names, tuple(scene.open() for scene in self.inputs), compute)


def composite_scenes(
    scenes: Sequence[Source], *, method: Method = "median", min_dates: int = 1, name: str | None = None
) -> CompositeScene:
    """A composite of the bands that all scenes have, on the finest of their grids.

    Args:
        scenes: Masked for clouds by their own quality layers; ties between dates go to the earlier one.
        method: "median", "medoid" or "greenest".
        min_dates: Fewest valid dates of a valid pixel.
        name: Default: the first scene's name, the method and the number of dates.

    Raises:
        SceneError: no common band, no red and near infrared for "greenest", or an option that has no meaning.
    """
    if method not in get_args(Method):
        raise SceneError("method of a composite", got=method, expected=", ".join(get_args(Method)))
    if scenes and all(scene.acquired_utc is not None for scene in scenes):
        scenes = [scene for _, scene in in_time_order(scenes)]
    if not 1 <= min_dates <= len(scenes):
        raise SceneError("min_dates of a composite", got=min_dates, expected=f"1 to {len(scenes)}, the number of dates")
    inputs = common_input(scenes)
    if method == "greenest":
        _greenness(inputs[0])
    return CompositeScene(
        name or f"{inputs[0].id}_{method}_{len(inputs)}", inputs, inputs[0].band_names, method, min_dates
    )


def _greenness(scene: Source) -> Index:
    return find_index("NDVI", bands=scene.band_names, path=scene.path)


def _composed(
    inputs: Sequence[Reader], window: Window, *, composite: CompositeScene, greenness: Index | None
) -> Raster:
    rasters = [reader.read(window) for reader in inputs]
    observed = np.stack([raster.valid for raster in rasters])
    values = np.stack([raster.values for raster in rasters])
    valid = observed.sum(axis=0) >= composite.min_dates
    if greenness is not None:
        score = np.stack([np.where(ok, v, -np.inf) for v, ok in (compute_index(greenness, r) for r in rasters)])
        picture = _from_date(values, _best(score, observed))
    elif composite.method == "medoid":
        picture = _from_date(values, _best(-_distances(values, observed), observed))
    else:
        picture = masked_median(values, observed)
    result = np.stack([picture[rasters[0].bands.index(name)] for name in composite.names])
    np.multiply(result, valid, out=result)
    return Raster(result, valid, composite.names, composite.grid.crop(window))


def _best(score: NDArray[np.floating], observed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The valid date of the highest score, [row,col]; the first on a tie, and even where all valid scores are -inf."""
    ranked = np.where(observed, np.maximum(score, np.finfo(np.float64).min), -np.inf)
    return np.asarray(ranked.argmax(axis=0), dtype=np.intp)


def _from_date(values: NDArray[np.float32], date: NDArray[np.intp]) -> NDArray[np.float32]:
    chosen: NDArray[np.float32] = np.take_along_axis(values, date[None, None], axis=0)[0]
    return chosen


def _distances(values: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum of spectral distances of each date to all valid dates, float64 [date,row,col]."""
    total = np.zeros(observed.shape)
    for one in range(len(values)):
        for other in range(one + 1, len(values)):
            apart = np.sqrt(np.square(values[one] - values[other], dtype=np.float64).sum(axis=0))
            total[one] += apart * observed[other]
            total[other] += apart * observed[one]
    return total


def masked_median(values: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Median over the valid dates, float32 [band,row,col]; 0 where there is none.

    Args:
        values: float32 [date,band,row,col].
        observed: bool [date,row,col].
    """
    ranked = np.sort(np.where(observed[:, None], values, np.inf), axis=0)
    count = observed.sum(axis=0)
    low = np.take_along_axis(ranked, np.maximum((count - 1) // 2, 0)[None, None], axis=0)[0]
    high = np.take_along_axis(ranked, np.minimum(count // 2, len(values) - 1)[None, None], axis=0)[0]
    some = count > 0
    middle = 0.5 * (np.where(some, low, 0) + np.where(some, high, 0))
    return middle.astype(np.float32)
