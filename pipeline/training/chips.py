"""Which chips are learned from: one function chooses them, the chips stage writes them, training reads them.

A chip is a window of a scene. Chips around labels are centred on a labelled pixel of the training or validation
polygons; chips anywhere tile the scenes and get soft labels. No chip is centred on a test polygon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from pipeline.errors import GridError, LabelError
from pipeline.experts.weights import turns
from pipeline.grid import Window
from pipeline.splits.split import Part
from pipeline.training.chip_index import UNLABELLED, ChipIndex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.grid import Grid
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.splits.split import Split
    from pipeline.training.settings import ChipSettings

_NETWORK_MULTIPLE = 32
LEARNED = (Part.TRAIN, Part.VALIDATION)


def choose_chips(
    pixels: Mapping[str, LabelledPixels],
    *, settings: ChipSettings, split: Split, scheme: ClassScheme, head: Literal["unet", "chip"] = "unet",
) -> ChipIndex:  # fmt: skip
    """Chips around the labelled pixels of train and validation, and chips anywhere in the scenes.

    A small polygon has one chip, a large one a chip every half of its side (with head chip, every cell of
    the map); each is centred on a labelled pixel of its
    own part. Of more places than ``settings.labelled`` those are taken that leave no polygon without a chip, then no
    class behind. At the scene's edge a chip around a label reaches beyond the grid, where the reader gives invalid
    pixels: shifted into the grid, it might see pixels across the buffer.

    Args:
        pixels: Scene id -> labelled pixels.
        settings: Size, numbers and seed.
        split: Which polygon is for what.
        scheme: The legend, for the counts per class.
        head: What the chips are for: a class per pixel, or per chip.

    Raises:
        GridError: a chip that is larger than a scene; the message names the largest possible.
        LabelError: no labelled pixel of train or validation.
    """
    for scene, labelled in pixels.items():
        check_chip_fits(labelled.grid, chip_px=settings.size_px, scene=scene)
    rng = np.random.default_rng(settings.seed)
    parts = [split.part[labelled.polygon] for labelled in pixels.values()]
    kept = [labelled.select(np.isin(part, LEARNED)) for labelled, part in zip(pixels.values(), parts, strict=True)]
    if not any(len(part) for part in kept):
        raise LabelError("no labelled pixel to learn from", fix="check the split and the labels")
    size, names = settings.size_px, list(pixels)
    spacing = chip_stride_px(size) if head == "chip" else max(size // 2, 1)
    around = _around(kept, chip_px=size, spacing_px=spacing, most=settings.labelled, rng=rng)
    shapes = [labelled.grid.shape for labelled in pixels.values()]
    anywhere = _anywhere(shapes, chip_px=size, count=settings.unlabelled, rng=rng)
    rows = []
    for number, name in enumerate(names):
        for at, row, col, polygon in around:
            if at == number:
                part = Part(int(split.part[polygon]))
                own = kept[number].select(split.part[kept[number].polygon] == part)
                rows.append(_row(name, part.name.lower(), Window(row, col, size, size), own, scheme))
        rows += [
            _row(name, UNLABELLED, Window(row, col, size, size), None, scheme)
            for at, row, col in anywhere
            if at == number
        ]
    frame = pd.DataFrame(rows, columns=ChipIndex.columns(scheme))
    return ChipIndex(frame, scheme, {scene: labelled.grid for scene, labelled in pixels.items()})


def chip_stride_px(chip_px: int) -> int:
    """Side of the cells, about a quarter of a chip, that get one class each in a chip classifier's map."""
    stride = max(chip_px // 4, 1)
    return stride + (chip_px - stride) % 2


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


def _around(
    pixels: Sequence[LabelledPixels], *, chip_px: int, spacing_px: int, most: int, rng: np.random.Generator
) -> list[tuple[int, int, int, int]]:
    """(scene, row, col, polygon) of chips centred on polygons, one per polygon and cell of ``spacing_px``."""
    places, codes = [], []
    for number, part in enumerate(pixels):
        for position in centres(part, stride_px=spacing_px) if len(part) else ():
            row, col = int(part.row[position]) - chip_px // 2, int(part.col[position]) - chip_px // 2
            places.append((number, row, col, int(part.polygon[position])))
            codes.append(int(part.code[position]))
    order = rng.permutation(len(places))
    polygons = np.array([place[3] for place in places])
    turn = turns(polygons[order]) * 1_000_000 + turns(np.array(codes)[order])
    chosen = order[np.argsort(turn, kind="stable")][:most]
    return [places[i] for i in sorted(chosen)]


def _anywhere(
    shapes: Sequence[tuple[int, int]], *, chip_px: int, count: int, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """(scene, row, col) of ``count`` chips, drawn from those that tile the scenes; of small scenes all of them.

    Chips at places drawn freely overlap and leave out a third of a scene of their area. The last row and column of
    chips are moved back into the scene.
    """
    wide = [max(-(-width // chip_px), 1) for _, width in shapes]
    cells = np.array([max(-(-height // chip_px), 1) * cols for (height, _), cols in zip(shapes, wide, strict=True)])
    total = int(cells.sum())
    drawn = np.sort(rng.choice(total, size=min(count, total), replace=False))
    scene = np.searchsorted(np.cumsum(cells), drawn, side="right")
    cell = drawn - (np.cumsum(cells) - cells)[scene]
    return [
        (
            int(at),
            min(int(number) // wide[at] * chip_px, max(shapes[at][0] - chip_px, 0)),
            min(int(number) % wide[at] * chip_px, max(shapes[at][1] - chip_px, 0)),
        )
        for at, number in zip(scene, cell, strict=True)
    ]


def _row(
    scene: str, part: str, window: Window, pixels: LabelledPixels | None, scheme: ClassScheme
) -> dict[str, object]:
    """One row of the index; ``pixels`` are the labelled pixels of the chip's part, None where it has no label."""
    inside = pixels.within(window) if pixels is not None else np.empty(0, dtype=np.intp)
    codes = pixels.code[inside] if pixels is not None else np.empty(0, dtype=np.uint8)
    polygons = np.unique(pixels.polygon[inside]).tolist() if pixels is not None else []
    counts = np.bincount(codes, minlength=256)
    return {
        "scene": scene,
        "part": part,
        "row": window.row,
        "col": window.col,
        "height": window.height,
        "width": window.width,
        "polygons": polygons,
        **{f"px_{item.code}": int(counts[item.code]) for item in scheme.classes},
    }
