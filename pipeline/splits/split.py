"""Who may learn from which polygon, and the check that fails a run where what is tested was seen in training.

Source: Roberts et al. (2017), Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure, Ecography 40, 913-929 (blocks); Kattenborn et al. (2022), Spatially autocorrelated training and
validation samples inflate performance assessment of convolutional neural networks, ISPRS Open J. 5, 100018 (why).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from scipy.spatial import cKDTree

from pipeline.errors import LabelError, SplitError

if TYPE_CHECKING:
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.scenes.scene import Source


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """A scene to learn from and its labelled pixels, on the scene's own grid."""

    source: Source
    pixels: LabelledPixels

    def __post_init__(self) -> None:
        """Refuse labels of another grid."""
        if not self.source.grid.same_pixels_as(self.pixels.grid):
            raise LabelError("labels were burned on another grid than the scene's", path=self.source.path)


class Part(IntEnum):
    """What a polygon is for."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    BUFFER = 3


ABSENT = -1


@dataclass(frozen=True, eq=False)
class Split:
    """Which polygon is for what."""

    part: NDArray[np.int8]  # [poly_id] a Part, or ABSENT (-1) for ids without pixels; index 0 is unused
    block_of: NDArray[np.int32]  # [poly_id] number of the polygon's block, -1 where there is none
    block_m: float  # Side of a block in metres, 0 where the split is not spatial
    buffer_m: float  # Least distance in metres between pixels of two parts
    # Number of the only scene whose pixels are tested, the one that is left out; None: all are
    tested_scene: int | None = None

    def polygons(self, part: Part) -> NDArray[np.int32]:
        """Ids of the polygons of ``part``, ascending."""
        return np.flatnonzero(self.part == part).astype(np.int32)

    def pixels(self, pixels: LabelledPixels, part: Part) -> LabelledPixels:
        """The labelled pixels of one scene that belong to ``part``."""
        return pixels.select(self.part[pixels.polygon] == part)

    def tested(self, pixels: Sequence[LabelledPixels]) -> list[LabelledPixels]:
        """The pixels of each scene that are tested: those of TEST, where one scene is left out of that one alone."""
        return [
            self.pixels(scene, Part.TEST) if self.tested_scene in {None, number} else scene.select(())
            for number, scene in enumerate(pixels)
        ]

    def counts(self, pixels: Sequence[LabelledPixels], scheme: ClassScheme) -> dict[str, dict[str, dict[str, int]]]:
        """``{class: {part: {"polygons": n, "pixels": n}}}`` for every class of the scheme and every part."""
        layout = Layout.of(pixels)
        part = self.part[layout.ids]
        return {
            item.name: {
                p.name.lower(): {
                    "polygons": int(((part == p) & (layout.code == item.code)).sum()),
                    "pixels": int(layout.size_px[(part == p) & (layout.code == item.code)].sum()),
                }
                for p in Part
            }
            for item in scheme.classes
        }


_PARTS = ((Part.TRAIN, Part.TEST), (Part.VALIDATION, Part.TEST), (Part.TRAIN, Part.VALIDATION))


def check_leakage(
    pixels: Sequence[LabelledPixels], split: Split, *, reach_px: int = 0, buffer_m: float | None = None,
    shared: bool = False,
) -> None:  # fmt: skip
    """Prove that no pixel and no polygon is shared, and that no chip of one part reaches a labelled pixel of another.

    Every labelled pixel of train, validation and test must be further than ``buffer_m`` (default: the split's) and
    than ``reach_px`` pixels, in chessboard distance, from every labelled pixel of the other two.

    ``reach_px`` is half a chip: how far a window centred on a labelled pixel reaches. With ``shared`` samples of one
    part may share a pixel, as stations in a cell of a coarse raster do.

    Raises:
        SplitError: names the two polygons that are too near, and how near.
    """
    keep_m = split.buffer_m if buffer_m is None else buffer_m
    for number, scene in enumerate(pixels):
        if not shared:
            _check_pixels_once(scene, number)
        within_m = max(keep_m, reach_px * max(scene.grid.pixel_size_m) if reach_px else 0.0)
        rims = {part: (own := split.pixels(scene, part)).select(rim_mask(own)) for part in Part}
        for one, other in _PARTS:
            _check_distance(rims[one], rims[other], (one, other), within_m=within_m)


def _check_pixels_once(scene: LabelledPixels, number: int) -> None:
    key = scene.row.astype(np.int64) * scene.grid.width + scene.col
    if len(key) > 1 and (np.diff(key) <= 0).any():
        at = int(np.flatnonzero(np.diff(key) <= 0)[0])
        what = f"pixel (row {scene.row[at]}, column {scene.col[at]}) of scene {number + 1} belongs to two polygons"
        got = f"polygons {scene.polygon[at]} and {scene.polygon[at + 1]}"
        raise SplitError(what, got=got, expected="every pixel once, sorted")


def _check_distance(one: LabelledPixels, other: LabelledPixels, parts: tuple[Part, Part], *, within_m: float) -> None:
    if not len(one) or not len(other) or within_m <= 0:
        return
    tree = cKDTree(metres(other))
    limit = within_m * (1 + 1e-9)
    distance, nearest = tree.query(metres(one), p=np.inf, distance_upper_bound=limit)
    at = int(np.argmin(distance))
    if np.isfinite(distance[at]):
        names = " and ".join(part.name.lower() for part in parts)
        what = f"{names} leak: polygons {one.polygon[at]} and {other.polygon[nearest[at]]} are too near"
        expected, fix = f"more than {within_m:.0f} m", "use a wider buffer, at least half a chip"
        raise SplitError(what, got=f"{distance[at]:.0f} m", expected=expected, fix=fix)


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
