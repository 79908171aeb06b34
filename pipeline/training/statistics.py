"""Band statistics, streamed from the valid labelled pixels of training and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import LabelError, SceneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.scenes.reader import Reader

_TILE_PX = 512
# Percentiles come from a sample of at most this many pixels: the standard error of p02 is then below 0.05 percentiles.
_SAMPLE = 100_000


@dataclass(frozen=True, eq=False)
class BandStatistics:
    """Statistics of each band over ``n`` valid pixels; float64 [band], in the raster's unit."""

    bands: tuple[str, ...]  # Names
    n: int  # Number of pixels
    mean: NDArray[np.float64]  # Mean
    std: NDArray[np.float64]  # Standard deviation (population)
    p02: NDArray[np.float64]  # 2nd percentile
    p98: NDArray[np.float64]  # 98th percentile
    min: NDArray[np.float64]  # Smallest value
    max: NDArray[np.float64]  # Largest value

    def to_json(self) -> dict[str, object]:
        """JSON-ready dictionary."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return {"bands": list(self.bands), "n": self.n, **arrays}

    @classmethod
    def from_json(cls, item: Mapping[str, object]) -> BandStatistics:
        """The inverse of :meth:`to_json`."""
        arrays = {name: np.asarray(item[name], dtype=np.float64) for name in _ARRAYS}
        bands = item["bands"]
        if not isinstance(bands, (list, tuple)):
            raise SceneError("band statistics without a list of bands", got=bands)
        return cls(bands=tuple(map(str, bands)), n=int(str(item["n"])), **arrays)


_ARRAYS = ("mean", "std", "p02", "p98", "min", "max")


class Accumulator:
    """Streams values [band, n] into BandStatistics.

    Mean and squared deviations are merged chunk by chunk. Source: Chan, Golub & LeVeque (1983), Algorithms for
    computing the sample variance, Am. Stat. 37, 242-247, eq. 2.1. Percentiles come from a uniform sample (the pixels
    with the smallest random keys), exact up to its size.
    """

    def __init__(self, bands: tuple[str, ...], *, seed: int = 0) -> None:
        self._bands = bands
        self._rng = np.random.default_rng(seed)
        self._n = 0
        self._mean = np.zeros(len(bands))
        self._m2 = np.zeros(len(bands))
        self._min = np.full(len(bands), np.inf)
        self._max = np.full(len(bands), -np.inf)
        self._sample = np.empty((len(bands), 0), dtype=np.float32)
        self._keys = np.empty(0)

    def add(self, values: NDArray[np.float32]) -> None:
        """Add pixels, float32 [band, n]."""
        count = values.shape[1]
        if count == 0:
            return
        wide = values.astype(np.float64)
        mean = wide.mean(axis=1)
        delta = mean - self._mean
        total = self._n + count
        self._m2 += ((wide - mean[:, None]) ** 2).sum(axis=1) + delta**2 * self._n * count / total
        self._mean += delta * count / total
        self._n = total
        self._min = np.minimum(self._min, wide.min(axis=1))
        self._max = np.maximum(self._max, wide.max(axis=1))
        keys = np.r_[self._keys, self._rng.random(count)]
        sample = np.concatenate([self._sample, values], axis=1)
        if len(keys) > _SAMPLE:
            smallest = np.argpartition(keys, _SAMPLE)[:_SAMPLE]
            keys, sample = keys[smallest], sample[:, smallest]
        self._keys, self._sample = keys, sample

    def result(self) -> BandStatistics:
        """The statistics of everything added.

        Raises:
            LabelError: nothing was added.
        """
        if self._n == 0:
            raise LabelError("no valid labelled pixel", fix="check nodata and clouds under the polygons")
        p02, p98 = np.percentile(self._sample.astype(np.float64), (2, 98), axis=1)
        std = np.sqrt(self._m2 / self._n)
        return BandStatistics(
            self._bands, self._n, self._mean.copy(), std, p02, p98, self._min.copy(), self._max.copy()
        )


def valid_values(
    readers: Sequence[Reader], pixels: Sequence[LabelledPixels], *, tile_px: int = _TILE_PX
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float32]]]:
    """Values of labelled pixels where they are valid, tile by tile: no more than a tile of a scene in memory.

    Yields:
        Number of the scene, positions intp [k] in its pixels, values float32 [band, k].
    """
    for number, (reader, labelled) in enumerate(zip(readers, pixels, strict=True)):
        if not reader.grid.same_pixels_as(labelled.grid):
            raise LabelError(
                "labels were burned on another grid than the scene's", got=labelled.grid, expected=reader.grid
            )
        for tile in reader.grid.tiles(tile_px):
            position = labelled.within(tile)
            if not len(position):
                continue
            raster = reader.read(tile)
            rows, cols = labelled.row[position] - tile.row, labelled.col[position] - tile.col
            usable = raster.valid[rows, cols]
            yield number, position[usable], raster.values[:, rows[usable], cols[usable]]


def band_statistics(readers: Sequence[Reader], pixels: Sequence[LabelledPixels]) -> BandStatistics:
    """Statistics over the valid pixels of ``pixels`` (pass the training part only: ``split.pixels(..., Part.TRAIN)``).

    Raises:
        SceneError: scenes with other bands than the first.
        LabelError: no valid labelled pixel at all.
    """
    total = Accumulator(_common_bands(readers))
    for _, _, values in valid_values(readers, pixels):
        total.add(values)
    return total.result()


def _common_bands(readers: Sequence[Reader]) -> tuple[str, ...]:
    bands = readers[0].bands
    for number, reader in enumerate(readers):
        if reader.bands != bands:
            what = f"scene {number + 1} has other bands than scene 1"
            raise SceneError(
                what, got=", ".join(reader.bands), expected=", ".join(bands), fix="name bands in the config"
            )
    return bands
