"""Where to cut chips: windows around labelled pixels, each for one part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.errors import GridError
from pipeline.grid import Window
from pipeline.splits.split import Part
from pipeline.training.chip_index import ChipIndex

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from pipeline.grid import Grid
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.splits.split import Split

_NETWORK_MULTIPLE = 32


def plan_chips(
    pixels: Mapping[str, LabelledPixels],
    *,
    chip_px: int,
    split: Split,
    scheme: ClassScheme,
    stride_px: int | None = None,
) -> ChipIndex:
    """Chips around the labelled pixels of train, validation and test.

    A small polygon has one chip, a large one a chip every ``stride_px``; each is centred on a labelled pixel of its own
    part, so that it reaches no further than half a chip and the split's buffer holds. Only the labels of its own
    part count in it. At the scene's edge a chip reaches beyond the grid, where the reader gives invalid pixels:
    shifted into the grid, it might see pixels across the buffer.

    Args:
        pixels: Scene id -> labelled pixels.
        chip_px: Side of a chip.
        split: Which polygon is for what.
        scheme: The legend, for the counts per class.
        stride_px: Distance of centres within a polygon; half a chip by default.

    Raises:
        GridError: a chip that is larger than a scene; the message names the largest possible.
    """
    stride = stride_px or max(chip_px // 2, 1)
    rows: list[dict[str, object]] = []
    for scene, labelled in pixels.items():
        check_chip_fits(labelled.grid, chip_px=chip_px, scene=scene)
        for part in (Part.TRAIN, Part.VALIDATION, Part.TEST):
            own = split.pixels(labelled, part)
            for window in _windows(own, chip_px=chip_px, stride_px=stride):
                row = {"scene": scene, "part": part.name.lower()} | _describe(own, window, scheme)
                rows.append(row)
    frame = pd.DataFrame(rows, columns=ChipIndex.columns(scheme))
    return ChipIndex(frame, scheme, {scene: labelled.grid for scene, labelled in pixels.items()})


def largest_chip_px(grid: Grid) -> int:
    """The largest chip that a scene can hold; a multiple of 32, as networks halve five times, where there is one."""
    side = min(grid.shape)
    return side // _NETWORK_MULTIPLE * _NETWORK_MULTIPLE or side


def check_chip_fits(grid: Grid, *, chip_px: int, scene: str) -> None:
    """Refuse chips that are larger than the scene.

    Raises:
        GridError: names the largest chip possible.
    """
    if chip_px < 1 or chip_px > min(grid.shape):
        raise GridError(
            f"chip of {chip_px} x {chip_px} pixels does not fit into scene {scene!r}",
            got=f"a scene of {grid.height} x {grid.width} pixels",
            expected=f"chips of at most {largest_chip_px(grid)} pixels",
            fix="use smaller chips",
        )


def centres(pixels: LabelledPixels, *, stride_px: int) -> NDArray[np.intp]:
    """Positions of one labelled pixel for each polygon and ``stride_px`` cell: the one nearest to the cell's mean."""
    key = np.stack([pixels.polygon, pixels.row // stride_px, pixels.col // stride_px], axis=1)
    _, group, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    group = group.ravel()
    off_row = pixels.row - (np.bincount(group, pixels.row) / count)[group]
    off_col = pixels.col - (np.bincount(group, pixels.col) / count)[group]
    order = np.lexsort((off_row**2 + off_col**2, group))
    first = np.r_[True, np.diff(group[order]) > 0] if len(order) else np.empty(0, dtype=np.bool_)
    return np.sort(order[first])


def _windows(pixels: LabelledPixels, *, chip_px: int, stride_px: int) -> Iterator[Window]:
    seen = set()
    for position in centres(pixels, stride_px=stride_px):
        row, col = int(pixels.row[position]) - chip_px // 2, int(pixels.col[position]) - chip_px // 2
        if (row, col) not in seen:
            seen.add((row, col))
            yield Window(row, col, chip_px, chip_px)


def _describe(pixels: LabelledPixels, window: Window, scheme: ClassScheme) -> dict[str, object]:
    inside = pixels.within(window)
    counts = np.bincount(pixels.code[inside], minlength=256)
    return {
        "row": window.row,
        "col": window.col,
        "height": window.height,
        "width": window.width,
        "polygons": np.unique(pixels.polygon[inside]).tolist(),
        **{f"px_{item.code}": int(counts[item.code]) for item in scheme.classes},
    }
