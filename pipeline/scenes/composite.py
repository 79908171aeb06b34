"""A cloud-masked composite of several dates, streamed window by window.

- ``median``: per band, over the valid dates. Robust, but the bands of a pixel may come from different dates.
- ``medoid``: the date whose spectrum is nearest to those of all other valid dates (smallest sum of Euclidean
  distances), so a pixel's bands belong together. Source: Flood (2013), Seasonal composite Landsat TM/ETM+ images using
  the medoid (a multi-dimensional median), Remote Sensing 5(12):6481-6500.
- ``greenest``: the date of the highest NDVI. Source: Holben (1986), Characteristics of maximum-value composite images
  from temporal AVHRR data, International Journal of Remote Sensing 7(11):1417-1434.

A pixel is valid where at least ``min_dates`` dates are valid; the band ``valid_dates``, if asked for, counts them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pipeline.errors import SceneError
from pipeline.raster import Raster
from pipeline.scenes.derived import DerivedReader, common_input, in_time_order, pick, refuse_twice, shared
from pipeline.scenes.indices import compute_index, find_index

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from pipeline.grid import Grid, Window
    from pipeline.scenes.indices import Index
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source

Method = Literal["median", "medoid", "greenest"]
COUNT_BAND = "valid_dates"


@dataclass(frozen=True)
class CompositeScene:
    """One picture of several dates; give it to ``open_reader`` like a scene.

    Attributes:
        id: Name, unique in a run.
        scenes: On one grid, with the same bands; in time order where their dates are known.
        method: See the module.
        min_dates: Fewest valid dates of a valid pixel.
        names: Bands to give, in order.
    """

    id: str
    scenes: tuple[Source, ...]
    method: Method
    min_dates: int
    names: tuple[str, ...]

    @property
    def path(self) -> str:
        """The first scene's path; ``files`` has them all."""
        return self.scenes[0].path

    @property
    def grid(self) -> Grid:
        """The grid that all dates are read on."""
        return self.scenes[0].grid

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in order."""
        return self.names

    @property
    def sensor(self) -> str:
        """The sensor of all dates, "" where they differ."""
        return shared(scene.sensor for scene in self.scenes)

    @property
    def level(self) -> str:
        """The product level of all dates, "" where they differ."""
        return shared(scene.level for scene in self.scenes)

    @property
    def baseline(self) -> str:
        """The baseline of all dates, "" where they differ."""
        return shared(scene.baseline for scene in self.scenes)

    @property
    def acquired_utc(self) -> datetime | None:
        """The first date, None where no date is known."""
        return self.scenes[0].acquired_utc

    @property
    def files(self) -> tuple[str, ...]:
        """Files of all dates."""
        return tuple(dict.fromkeys(file for scene in self.scenes for file in scene.files))

    def select(self, names: Sequence[str]) -> CompositeScene:
        """Only ``names``, in that order; which date is chosen and which pixels are valid does not change."""
        return replace(self, names=pick(names, have=self.names, path=self.path))

    def on_grid(self, grid: Grid) -> CompositeScene:
        """The same with every date on another grid."""
        return replace(self, scenes=tuple(scene.on_grid(grid) for scene in self.scenes))

    def ledger(self) -> dict[str, object]:
        """The rule of the composite and the ledger of every date."""
        when = self.acquired_utc
        return {
            "scene": self.id,
            "kind": "composite",
            "sensor": self.sensor,
            "level": self.level,
            "baseline": self.baseline,
            "acquired_utc": when.isoformat() if when else None,
            "bands": [{"band": name} for name in self.names],
            "method": self.method,
            "min_dates": self.min_dates,
            "scenes": [scene.ledger() for scene in self.scenes],
        }

    def open(self) -> Reader:
        """A reader; holds dates x bands of one window in memory."""
        greenness = _greenness(self.scenes[0]) if self.method == "greenest" else None
        compute = partial(_composed, composite=self, greenness=greenness)
        return DerivedReader(self.grid, self.names, tuple(scene.open() for scene in self.scenes), compute)


def composite_scenes(
    scenes: Sequence[Source],
    *,
    method: Method = "median",
    min_dates: int = 1,
    count: bool = False,
    grid: Grid | None = None,
    name: str | None = None,
) -> CompositeScene:
    """A composite of the bands that all scenes have.

    Args:
        scenes: Masked for clouds by their own quality layers; ties between dates go to the earlier one.
        method: "median", "medoid" or "greenest".
        min_dates: Fewest valid dates of a valid pixel.
        count: Add the band ``valid_dates``.
        grid: Default: the finest of the scenes' grids.
        name: Default: the first scene's name, the method and the number of dates.

    Raises:
        SceneError: no common band, no red and near infrared for "greenest", or an option that has no meaning.
    """
    if method not in get_args(Method):
        raise SceneError("method of a composite", got=method, expected=", ".join(get_args(Method)))
    if scenes and all(scene.acquired_utc is not None for scene in scenes):
        scenes = [scene for _, scene in in_time_order(scenes, [None] * len(scenes))]
    if not 1 <= min_dates <= len(scenes):
        raise SceneError("min_dates of a composite", got=min_dates, expected=f"1 to {len(scenes)}, the number of dates")
    inputs = common_input(scenes, grid=grid)
    if method == "greenest":
        _greenness(inputs[0])
    names = (*inputs[0].band_names, *((COUNT_BAND,) if count else ()))
    refuse_twice(names, path=inputs[0].path)
    return CompositeScene(name or f"{inputs[0].id}_{method}_{len(inputs)}", inputs, method, min_dates, names)


def _greenness(scene: Source) -> Index:
    return find_index("NDVI", bands=scene.band_names, path=scene.path)


def _composed(
    inputs: Sequence[Reader], window: Window, *, composite: CompositeScene, greenness: Index | None
) -> Raster:
    rasters = [reader.read(window) for reader in inputs]
    observed = np.stack([raster.valid for raster in rasters])
    values = np.stack([raster.values for raster in rasters])
    count = observed.sum(axis=0)
    valid = count >= composite.min_dates
    if greenness is not None:
        score = np.stack([np.where(ok, v, -np.inf) for v, ok in (compute_index(greenness, r) for r in rasters)])
        picture = _from_date(values, _best(score, observed))
    elif composite.method == "medoid":
        picture = _from_date(values, _best(-_distances(values, observed), observed))
    else:
        picture = masked_median(values, observed)
    layers = dict(zip(rasters[0].bands, picture, strict=True)) | {COUNT_BAND: count.astype(np.float32)}
    result = np.stack([layers[name] for name in composite.names])
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
