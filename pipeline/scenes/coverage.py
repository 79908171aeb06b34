"""Do layers cover the scene they are stacked on? Asked of their extents when they join, of their pixels when looked at.

A layer without a value takes the pixel out of the map, so one that lies elsewhere would make a map of nothing.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from rasterio.warp import transform

from pipeline.errors import SceneError, SceneWarning
from pipeline.scenes.ledger import sample_windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.grid import Grid, Window
    from pipeline.scenes.layers import WithLayers
    from pipeline.scenes.scene import Scene, Source

# Places looked at on each side of a scene: the share is known to some per mille, at no cost that shows.
PLACES = 64
# Below this share a layer misses more than the rim that another projection or pixel size leaves uncovered.
WHOLE = 0.99
FIX = "give one that covers the scene (several tiles of one layer join with gdalbuildvrt)"


def covered_share(grid: Grid, *, by: Grid) -> float:
    """Share of ``grid`` inside the extent of another grid, whatever its CRS, 0..1; from 64 x 64 places."""
    rows = (np.arange(PLACES) + 0.5) * grid.height / PLACES
    cols = (np.arange(PLACES) + 0.5) * grid.width / PLACES
    x = grid.transform.c + grid.transform.a * np.tile(cols, PLACES)
    y = grid.transform.f + grid.transform.e * np.repeat(rows, PLACES)
    there = [np.asarray(part) for part in transform(grid.crs, by.crs, x, y)]
    left, bottom, right, top = by.bounds
    # Places that the other projection has no coordinates for are infinite: not inside.
    inside = (there[0] >= left) & (there[0] <= right) & (there[1] >= bottom) & (there[1] <= top)
    return float(inside.mean())


def check_covered(scene: Source, layer: Scene) -> float:
    """The share of a scene's ground that a layer's extent covers; warns where it is not all.

    Raises:
        SceneError: nothing of it.
    """
    share = covered_share(scene.grid, by=layer.grid)
    if share == 0:
        what, got = f"layer does not cover scene {scene.id}", f"{layer.grid.crs} {_rounded(layer.grid)}"
        raise SceneError(what, path=layer.path, got=got, expected=f"{scene.grid.crs} {_rounded(scene.grid)}", fix=FIX)
    if share < WHOLE:
        _warn(f"{layer.path}: layer covers {share:.0%} of scene {scene.id}; the rest has no data")
    return share


def _rounded(grid: Grid) -> tuple[float, ...]:
    digits = 4 if grid.crs.is_geographic else 0
    return tuple(round(side, digits) for side in grid.bounds)


def layers_of(source: Source) -> WithLayers | None:
    """The source that joins layers, among what a source is made of; None where there is none."""
    from pipeline.scenes.layers import WithLayers

    inner: Source | None = source
    while inner is not None and not isinstance(inner, WithLayers):
        inner = getattr(inner, "source", None)
    return inner


def measure_layers(source: Source) -> dict[str, float]:
    """Share of a scene's usable pixels, in some windows, that each of its layers has no value for; warns of gaps.

    Returns:
        The layer's name -> share 0..1; empty without layers, or where the scene itself has no usable pixel there.

    Raises:
        SceneError: a file cannot be read, or a layer has no value at all on a scene that was looked at whole.
    """
    joined = layers_of(source)
    if joined is None:
        return {}
    windows = sample_windows(joined.grid)
    own = np.concatenate(list(_valid(joined.source, windows)))
    if not own.any():
        return {}
    shares: dict[str, float] = {}
    for layer in joined.used:
        alone = joined.only(layer)
        seen = np.concatenate(list(_valid(alone, windows)))
        shares[layer.scene.id] = round(float(1 - seen[own].mean()), 4)
        _judge(layer.scene, joined, shares[layer.scene.id], whole=windows == (joined.grid.window,))
    return shares


def _judge(layer: Scene, scene: Source, lost: float, *, whole: bool) -> None:
    if lost >= 1 and whole:
        what, got = f"layer has no value on scene {scene.id}", "nodata at every usable pixel of the scene"
        raise SceneError(what, path=layer.path, got=got, fix=FIX)
    if lost > 1 - WHOLE:
        where = "pixels" if whole else "pixels looked at"
        _warn(f"{layer.path}: layer has no value for {lost:.0%} of the usable {where} of scene {scene.id}")


def _valid(source: Source, windows: tuple[Window, ...]) -> Iterator[NDArray[np.bool_]]:
    with source.open() as reader:
        for window in windows:
            yield reader.read(window).valid.ravel()


def _warn(text: str) -> None:
    warnings.warn(text, SceneWarning, stacklevel=4)
