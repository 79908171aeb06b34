"""Where labelled polygons lie: positions in one plane for all scenes, rims, and who is near whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS, Transformer
from scipy.spatial import cKDTree

from pipeline.errors import SplitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels


@dataclass(frozen=True, eq=False)
class Layout:
    """Every polygon of some scenes."""

    pixels: tuple[LabelledPixels, ...]  # The scenes' labelled pixels; a polygon may have pixels in several
    ids: NDArray[np.int32]  # [polygon] ascending
    code: NDArray[np.uint8]  # [polygon]
    size_px: NDArray[np.int64]  # [polygon] labelled pixels in all scenes

    @classmethod
    def of(cls, pixels: Sequence[LabelledPixels]) -> Layout:
        """The layout of the scenes' labelled pixels."""
        polygon = np.concatenate([part.polygon for part in pixels])
        code = np.concatenate([part.code for part in pixels])
        ids, first, size = np.unique(polygon, return_index=True, return_counts=True)
        return cls(tuple(pixels), ids.astype(np.int32), code[first], size.astype(np.int64))

    @cached_property
    def position_m(self) -> NDArray[np.float64]:
        """(x, y) in metres of each polygon's mean pixel, float64 [polygon, 2], x to the east, y to the south.

        In the scene that holds most of the polygon. Scenes of one CRS share a plane that starts at the first grid's
        upper left corner; scenes of several CRS (UTM zones) share the azimuthal equal-area plane around the first.
        """
        best = np.zeros(len(self.ids), dtype=np.int64)
        position = np.zeros((len(self.ids), 2))
        for part in self.pixels:
            where = np.searchsorted(self.ids, part.polygon)
            count = np.bincount(where, minlength=len(self.ids))
            mean_row = np.bincount(where, part.row, minlength=len(self.ids)) / np.maximum(count, 1)
            mean_col = np.bincount(where, part.col, minlength=len(self.ids)) / np.maximum(count, 1)
            better = count > best
            best[better] = count[better]
            position[better] = self._plane(part, mean_row[better], mean_col[better])
        return position

    def _plane(self, part: LabelledPixels, row: NDArray[np.float64], col: NDArray[np.float64]) -> NDArray[np.float64]:
        grid, first = part.grid, self.pixels[0].grid
        transform = grid.transform
        x, y = transform.c + transform.a * (col + 0.5), transform.f + transform.e * (row + 0.5)
        if all(other.grid.crs == first.crs for other in self.pixels):
            metres = np.array(first.pixel_size_m) / np.array(first.pixel_size)
            left, _, _, top = first.bounds
            return np.stack([(x - left) * metres[0], (top - y) * metres[1]], axis=1)
        lon, lat = Transformer.from_crs(str(first.crs), 4326, always_xy=True).transform(*first.xy(0, 0))
        plane = CRS.from_proj4(f"+proj=laea +lat_0={lat:.6f} +lon_0={lon:.6f} +units=m")
        east, north = Transformer.from_crs(str(grid.crs), plane, always_xy=True).transform(x, y)
        return np.stack([east, -np.asarray(north)], axis=1)

    def neighbours(self, distance_m: float) -> NDArray[np.intp]:
        """Pairs of positions in ``ids`` that have pixels within ``distance_m`` in one scene, intp [pair, 2].

        Distances are chessboard distances between pixel centres, since chips are squares. Each pair once, i < j.
        """
        if distance_m <= 0:
            return np.empty((0, 2), dtype=np.intp)
        pairs = [self._neighbours(part, distance_m) for part in self.pixels if len(part)]
        return np.unique(np.concatenate(pairs), axis=0) if pairs else np.empty((0, 2), dtype=np.intp)

    def _neighbours(self, part: LabelledPixels, distance_m: float) -> NDArray[np.intp]:
        rim = part.select(rim_mask(part))
        where = np.searchsorted(self.ids, rim.polygon)
        order = np.argsort(where, kind="stable")
        where, points = where[order], metres(rim)[order]
        present, start = np.unique(where, return_index=True)
        groups = np.split(points, start[1:])
        clouds: NDArray[Any] = np.asarray(shapely.multipoints(points, indices=np.searchsorted(present, where)))
        # Chessboard distance d lies between d and d * sqrt(2) in the Euclidean one that GEOS knows.
        found = shapely.STRtree(clouds).query(clouds, predicate="dwithin", distance=distance_m * 2**0.5 + 1e-6).T
        found = found[found[:, 0] < found[:, 1]]
        sure = shapely.dwithin(clouds[found[:, 0]], clouds[found[:, 1]], distance_m)
        trees: dict[int, cKDTree] = {}
        for position in np.flatnonzero(~sure):
            a, b = (int(i) for i in found[position])
            if a not in trees:
                trees[a] = cKDTree(groups[a])
            nearest, _ = trees[a].query(groups[b], p=np.inf, distance_upper_bound=distance_m * (1 + 1e-9))
            sure[position] = np.isfinite(nearest).any()
        return np.asarray(present[found[sure]], dtype=np.intp)


def metres(pixels: LabelledPixels) -> NDArray[np.float64]:
    """(x, y) of labelled pixels in metres from their grid's corner, float64 [n, 2]."""
    size_x, size_y = pixels.grid.pixel_size_m
    return np.stack([pixels.col * size_x, pixels.row * size_y], axis=1)


def rim_mask(pixels: LabelledPixels) -> NDArray[np.bool_]:
    """Which labelled pixels have a 4-neighbour that is not of their polygon; the nearest pixels of two polygons are."""
    width = pixels.grid.width + 2
    key = (pixels.row.astype(np.int64) + 1) * width + pixels.col + 1
    inner = np.ones(len(key), dtype=np.bool_)
    for step in (-width, -1, 1, width):
        at = np.minimum(np.searchsorted(key, key + step), len(key) - 1)
        inner &= (key[at] == key + step) & (pixels.polygon[at] == pixels.polygon)
    return ~inner


def block_keys(position: NDArray[np.float64], block_m: float) -> NDArray[np.int64]:
    """A number for the block that each position float64 [n, 2] (x, y in metres) lies in, int64 [n]."""
    cell = np.floor(position / block_m).astype(np.int64)
    return np.asarray(cell[:, 1] * 2**31 + cell[:, 0], dtype=np.int64)


def blocks_of(layout: Layout, block_m: float) -> NDArray[np.int32]:
    """Number of each polygon's block, int32 [polygon], 0..occupied-1 from north-west to south-east.

    Raises:
        SplitError: blocks without size.
    """
    if not block_m > 0:
        raise SplitError("size of a block", got=f"{block_m} m", expected="more than 0 m")
    _, block = np.unique(block_keys(layout.position_m, block_m), return_inverse=True)
    return block.astype(np.int32)
