"""Samples of a continuous target with the features of their pixels: the table that teachers learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyproj import CRS, Transformer

from pipeline.errors import LabelError
from pipeline.experts.regressors import Places, ValueTable
from pipeline.experts.settings import Deadline
from pipeline.model.surroundings import REACH_PX, surroundings
from pipeline.scenes.reader import open_reader
from pipeline.training.encoder_features import FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.grid import Grid
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.model.preprocess import Preprocess
    from pipeline.quantity import Quantity
    from pipeline.scenes.scene import Source
    from pipeline.splits.split import TrainingScene
    from pipeline.training.encoder_features import FrozenFeatures

# Most pixels of one polygon: more of them say little new.
PER_POLYGON = 30
_TILE_PX = 64
# What an encoder is shown around a tile, whole strides; its effective reach (``pipeline.inference.measure``).
_HALO_PX = 32


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled pixels with features.

    Attributes:
        places: Features (surroundings of the pixel, then covariates), place, day.
        polygon: int32 [n]; id of the sample in the labels.
        plain: How many of the first features are the pixel's own bands.
        scale: Mean and deviation that they were standardised by.
    """

    places: Places
    polygon: NDArray[np.int32]
    plain: int
    scale: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def table(self, frame: GeoDataFrame, quantity: Quantity, group_of: NDArray[np.int64]) -> ValueTable:
        """What teachers learn: pixels of a sample share its value and a weight of 1.

        Args:
            frame: Of the labels.
            quantity: Fitted to the samples learned from.
            group_of: What is held out together, int64 [poly_id].
        """
        value = np.full(int(frame["poly_id"].max()) + 1, np.nan)
        value[frame["poly_id"]] = frame["value"]
        count = np.bincount(self.polygon)
        weight = 1.0 / count[self.polygon]
        target = quantity.forward(value[self.polygon])
        return ValueTable(self.places, target, group_of[self.polygon], weight, self.plain, self.scale)

    def rows(self, which: NDArray[Any]) -> Samples:
        """Some of them."""
        return Samples(self.places.at(which), self.polygon[which], self.plain, self.scale)


@dataclass(frozen=True)
class Plane:
    """The azimuthal equal-area plane around the samples, in metres: distances hold whatever the CRS."""

    crs: CRS

    @classmethod
    def around(cls, frame: GeoDataFrame) -> Plane:
        """The plane of a layer."""
        left, bottom, right, top = frame.to_crs(4326).total_bounds
        text = f"+proj=laea +lat_0={(bottom + top) / 2:.4f} +lon_0={(left + right) / 2:.4f} +units=m"
        return cls(CRS.from_proj4(text))

    def of_frame(self, frame: GeoDataFrame) -> NDArray[np.float64]:
        """Centres of geometries, float64 [n, 2]."""
        centre = frame.geometry.to_crs(self.crs).centroid
        return np.stack([centre.x.to_numpy(), centre.y.to_numpy()], axis=1)

    def of_pixels(self, grid: Grid, row: NDArray[Any], col: NDArray[Any]) -> NDArray[np.float64]:
        """Centres of pixels, float64 [n, 2]."""
        t = grid.transform
        x, y = t.a * (col + 0.5) + t.b * (row + 0.5) + t.c, t.d * (col + 0.5) + t.e * (row + 0.5) + t.f
        there = Transformer.from_crs(str(grid.crs), self.crs, always_xy=True)
        return np.stack(there.transform(x, y), axis=1)


def days_of(frame: GeoDataFrame) -> NDArray[np.int64]:
    """Day numbers since 1970, int64 [n]; 0 without a date."""
    days = frame["date"].to_numpy().astype("datetime64[D]").astype(np.int64)
    return np.where(frame["date"].isna().to_numpy(), 0, days)


def samples_of(
    scenes: Sequence[TrainingScene], frame: GeoDataFrame, *, preprocess: Preprocess | None, plane: Plane,
    covariates: Sequence[str] = (), seed: int = 0, frozen: FrozenFeatures | None = None,
    deadline: Deadline | None = None,
) -> Samples:  # fmt: skip
    """Valid labelled pixels with the surroundings that the network sees, standardised; covariates appended.

    Without scenes, samples with their covariates alone. With ``frozen`` they have the columns of that encoder too,
    where all are there at the ``deadline``.

    Raises:
        LabelError: no sample has data in every band (or covariate).
    """
    own = np.zeros(int(frame["poly_id"].max()) + 1, dtype=np.int64)
    own[frame["poly_id"]] = np.arange(len(frame))
    columns = None
    if scenes:
        until = deadline or Deadline()
        parts = [_of_scene(one.source, one.pixels, preprocess, seed=seed, frozen=frozen, until=until) for one in scenes]
        features = np.concatenate([part[0] for part in parts])
        polygon = np.concatenate([part[1] for part in parts])
        encoded = [part[2] for part in parts if part[2] is not None]
        columns = np.concatenate(encoded) if len(encoded) == len(parts) else None
    else:
        polygon = frame["poly_id"].to_numpy(dtype=np.int32)
        features = np.empty((len(frame), 0), dtype=np.float32)
    at = own[polygon]
    plain = preprocess.channels if preprocess is not None and scenes else len(covariates)
    if covariates:
        extra = frame[list(covariates)].to_numpy(dtype=np.float64)
        known = np.isfinite(extra)
        mean = np.nanmean(np.where(known, extra, np.nan), axis=0)
        extra = np.where(known, extra, mean)  # blank: the mean, as masked pixels are in the network
        extra = (extra - mean) / np.maximum(extra.std(0), 1e-9)
        features = np.c_[features, extra[at]].astype(np.float32)
    if not len(features) or not features.shape[1]:
        raise LabelError(
            "no sample lies on a pixel with data in every band" if scenes else "samples without scenes need covariates",
            fix="check nodata and masks of the scenes" if scenes else "set labels.value.covariates, or name scenes",
        )
    xy, day = plane.of_frame(frame), days_of(frame)
    scale = None
    if preprocess is not None and scenes:
        scale = np.array(preprocess.mean[:plain]), np.array(preprocess.std[:plain])
    return Samples(Places(features, xy[at], day[at], columns), polygon, plain, scale)


def _of_scene(
    source: Source, pixels: LabelledPixels, preprocess: Preprocess | None,
    *, seed: int, frozen: FrozenFeatures | None, until: Deadline,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32] | None]:  # fmt: skip
    """Features float32 [n, feature], polygon int32 [n], columns float32 [n, column] of valid labelled pixels.

    Columns are None without an encoder, and where not all are there by ``until``.
    """
    if preprocess is None:
        raise LabelError("scenes without statistics of their bands")
    pixels = pixels.select(_some_of_each(pixels.polygon, seed=seed))
    features, polygons = [np.empty((0, 5 * preprocess.channels), dtype=np.float32)], [np.empty(0, dtype=np.int32)]
    columns = [np.empty((0, frozen.count), dtype=np.float32)] if frozen is not None else []
    halo = REACH_PX if frozen is None else _HALO_PX
    with open_reader(source) as reader:
        for tile in reader.grid.tiles(_TILE_PX):
            at = pixels.within(tile)
            if not len(at):
                continue
            raster = reader.read(tile.expand(halo))
            x = preprocess(raster.values, raster.valid)[None]
            rows, cols = pixels.row[at] - tile.row + halo, pixels.col[at] - tile.col + halo
            keep = raster.valid[rows, cols]
            place = (0, slice(None), torch.from_numpy(rows[keep]).long(), torch.from_numpy(cols[keep]).long())
            features.append(surroundings(x)[place].T.numpy())
            polygons.append(pixels.polygon[at][keep])
            if frozen is not None and until.cuts(FEATURES):
                frozen = None
            if frozen is not None:
                columns.append(frozen.of_pixels(x)[place].T.numpy())
    encoded = np.concatenate(columns) if frozen is not None else None
    return np.concatenate(features), np.concatenate(polygons), encoded


def _some_of_each(polygon: NDArray[np.int32], *, seed: int) -> NDArray[np.bool_]:
    """At most PER_POLYGON pixels of each polygon, bool [n]."""
    order = np.random.default_rng(seed).permutation(len(polygon))
    order = order[np.argsort(polygon[order], kind="stable")]
    _, start, counts = np.unique(polygon[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, counts)
    keep = np.zeros(len(polygon), dtype=np.bool_)
    keep[order[rank < PER_POLYGON]] = True
    return keep
