"""Where to look next, without labels: squares of a map in the order in which it is likely wrong there.

Layers that a map does not have are left out. docs/accuracy.md has the signals, and the share of true errors in the
first 5 % of the area.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.assess_assisted import SURE, open_percent
from pipeline.accuracy.class_maps import CODES, aligned, open_class_map, read_codes, strips
from pipeline.accuracy.sample_pixels import square_sums
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid, Window
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA
from pipeline.maps.geotiff import scene_files

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


CELL_PX = 8
# Of a square's pixels that must have a class.
_USABLE = 0.5
# Signals and their weights in the score: chosen on five sets of tests/benchmarks/bench_where_next.py.
WEIGHTS = {"doubt": 1.0, "entropy": 1.0, "disagreement": 0.5, "dissimilarity": 0.1, "edges": 0.25}
# Pixels whose confidence is within so many per cent of a square's are about as sure.
_ALIKE = 10
# Squares of the largest area count so much more than those of the smallest.
_AREA_SHARE = 0.05
_REASONS = {
    "doubt": "low confidence", "entropy": "several classes alike", "disagreement": "maps disagree",
    "dissimilarity": "unlike the training data", "edges": "edges of classes",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class MapSquares:
    """Squares of a map that have classes in half of their pixels or more, from the top left on."""

    grid: Grid
    cell_px: int
    row: NDArray[np.int32]  # [square] first row
    col: NDArray[np.int32]  # [square] first column
    code: NDArray[np.uint8]  # [square] class of most pixels
    signals: dict[str, NDArray[np.float32]]  # mean over the square's pixels, 0..1, by the keys of WEIGHTS
    area_ha: NDArray[np.float32]  # [square] area that hangs on it

    def __len__(self) -> int:
        """Squares."""
        return len(self.row)

    def window(self, square: int) -> Window:
        """Where a square is, inside the map."""
        row, col = int(self.row[square]), int(self.col[square])
        return Window(row, col, min(self.cell_px, self.grid.height - row), min(self.cell_px, self.grid.width - col))


def look_at_map(map_path: Path, *, others: Sequence[Path] = (), cell_px: int = CELL_PX) -> MapSquares:
    """Signals of every square of a map, from the layers beside it and ``others``, maps of the same place.

    The map is read in strips of rows; what stays in memory is some 40 bytes per square.

    Raises:
        ReferenceDataError: no confidence beside the map.
        SceneError: a layer cannot be read.
    """
    files = scene_files(map_path)
    if "confidence" not in files.layers:
        raise ReferenceDataError(
            "no confidence beside the map", path=map_path, fix="map the scene with landcover predict"
        )
    parts: list[dict[str, NDArray[np.float32]]] = []
    by_confidence = np.zeros(CODES * CODES)
    with ExitStack() as stack:
        dataset = stack.enter_context(open_class_map(map_path))
        grid = Grid.of(dataset)
        layers = {key: open_percent(path, grid, stack) for key, path in files.layers.items() if key != "margin"}
        rivals = [aligned(stack.enter_context(open_class_map(path)), grid, stack) for path in others]
        rows = -(-dataset.block_shapes[0][0] // cell_px) * cell_px
        for window in strips(grid, rows):
            codes = _with_border(dataset, window, grid)
            inner = codes[1:-1, 1:-1]
            percent = {key: layer.read(1, window=window.to_rasterio()) for key, layer in layers.items()}
            pair = inner.astype(np.uint16) * np.uint16(CODES) + percent["confidence"]
            by_confidence += areas_by_code(pair, grid.pixel_areas_ha(window), size=CODES * CODES)[1]
            theirs = [read_codes(rival, window) for rival in rivals]
            parts.append(_strip(window, codes, percent, theirs, cell_px=cell_px))
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    area = _hanging_ha(by_confidence.reshape(CODES, CODES), table["code"], table["doubt"])
    signals = {name: table[name] for name in WEIGHTS if name in table}
    row, col = table["row"].astype(np.int32), table["col"].astype(np.int32)
    return MapSquares(grid, cell_px, row, col, table["code"].astype(np.uint8), signals, area)


def _with_border(dataset: DatasetReader, window: Window, grid: Grid) -> NDArray[np.uint8]:
    """Codes of a window and one pixel around it, NODATA beyond the map."""
    wide = window.expand(1)
    inside = wide.intersect(grid.window)
    codes = np.full(wide.shape, NODATA, dtype=np.uint8)
    if inside is not None:
        codes[inside.relative_to(wide).slices] = read_codes(dataset, inside)
    return codes


def _strip(
    window: Window, codes: NDArray[np.uint8], percent: dict[str, NDArray[np.uint8]],
    theirs: Sequence[NDArray[np.uint8]],
    *, cell_px: int,
) -> dict[str, NDArray[np.float32]]:  # fmt: skip
    """The squares of a strip: where they are, their class and signals, float32 [square] each."""
    inner = codes[1:-1, 1:-1]
    valid = inner != NODATA
    seen = square_sums(valid, cell_px)
    count = np.maximum(seen, 1)
    edge = np.zeros(inner.shape, dtype=np.bool_)
    for beside in (codes[:-2, 1:-1], codes[2:, 1:-1], codes[1:-1, :-2], codes[1:-1, 2:]):
        edge |= (beside != inner) & (beside != NODATA)
    values = {"edges": edge.astype(np.float32), "doubt": _share(percent["confidence"], invert=True)}
    if "entropy" in percent:
        values["entropy"] = _share(percent["entropy"])
    if "applicability" in percent:
        # Half is the limit of the area of applicability; twice as far and more is 1.
        values["dissimilarity"] = np.minimum(percent["applicability"].astype(np.float32) / (2 * SURE), 1.0)
    if theirs:
        votes = [(other != inner) & (other != NODATA) for other in theirs]
        values["disagreement"] = np.mean(votes, axis=0, dtype=np.float32)
    best, most = np.zeros(count.shape), np.zeros(count.shape)
    for code in np.unique(inner[valid]):
        share = square_sums(inner == code, cell_px)
        best, most = np.where(share > most, code, best), np.maximum(share, most)
    whole = square_sums(np.ones(inner.shape, dtype=np.bool_), cell_px)
    keep = (seen > 0) & (seen >= _USABLE * whole)
    row, col = np.nonzero(keep)
    found = {name: (square_sums(value * valid, cell_px) / count)[keep] for name, value in values.items()}
    found |= {"row": window.row + row * cell_px, "col": col * cell_px, "code": best[keep]}
    return {name: value.astype(np.float32) for name, value in found.items()}


def _share(percent: NDArray[np.uint8], *, invert: bool = False) -> NDArray[np.float32]:
    """Per cent as a share 0..1; pixels without a value are the most doubtful."""
    share = np.minimum(percent, SURE).astype(np.float32) / SURE
    return np.asarray(np.where(percent > SURE, 1.0, 1 - share if invert else share), dtype=np.float32)


def _hanging_ha(
    area: NDArray[np.float64], code: NDArray[np.float32], doubt: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Area in ha, float32 [square], of the pixels of the square's class that are about as sure as it."""
    total = np.cumsum(np.pad(area[:, : SURE + 1], ((0, 0), (1, 0))), axis=1)
    sure = np.rint(SURE * (1 - doubt)).astype(np.intp)
    low, high = np.maximum(sure - _ALIKE, 0), np.minimum(sure + _ALIKE, SURE) + 1
    own = code.astype(np.intp)
    return np.asarray(total[own, high] - total[own, low], dtype=np.float32)


def likely_wrong(squares: MapSquares) -> NDArray[np.float64]:
    """The score by which squares are ordered, float64 [square], the highest first."""
    ranks = {name: _ranks(values) for name, values in squares.signals.items()}
    weight = sum(WEIGHTS[name] for name in ranks)
    score = np.asarray(sum(WEIGHTS[name] * rank for name, rank in ranks.items())) / weight
    return np.asarray(score * (1 - _AREA_SHARE + _AREA_SHARE * _ranks(squares.area_ha)), dtype=np.float64)


def main_reasons(squares: MapSquares) -> list[str]:
    """The signal that each square stands out by most, in words."""
    ranks = {name: _ranks(values) for name, values in squares.signals.items()}
    names = list(ranks)
    return [_REASONS[names[first]] for first in np.argmax(list(ranks.values()), axis=0)] if len(squares) else []


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share of squares with a smaller value, those with an equal one by half, float64 [square]."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(((np.cumsum(count) - count / 2) / max(len(values), 1))[inverse], dtype=np.float64)
