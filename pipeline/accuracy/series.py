"""Annual maps made consistent: a hidden Markov model of every pixel, whose states are the classes of the legend.

A map of one year is what is seen of the class: -log p of a class is the cost of saying that it was there, with p the
map's probabilities, else its confidence (the rest shared by the other classes), else an accuracy that the user gives.
A change from one year to the next costs what the pair of classes costs. The consistent maps are the path of least cost
(Viterbi), and their confidence is the probability of its class given all years (forward-backward).

Source: Rabiner (1989), A tutorial on hidden Markov models, Proc. IEEE 77, 257-286, sect. III A and B. The years' errors
are taken as independent given the class; where the same pixel is wrong for the same reason every year, no model of one
pixel can tell.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray

from pipeline.accuracy.class_maps import CODES, open_class_map, read_codes, strips
from pipeline.accuracy.settings import CHANGE_COST, MAP_ACCURACY
from pipeline.documents import read_file
from pipeline.errors import ConfigError, GridError, ReferenceDataError, SceneError
from pipeline.grid import Grid, Window
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA, ClassScheme
from pipeline.maps.geotiff import scene_files
from pipeline.maps.legends import check_same_legend
from pipeline.raster import as_error

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


NEVER, ANY = "never", "*"
_YEAR = re.compile(r"(?<!\d)((?:19|20)\d{2})(?:[01]\d[0-3]\d)?(?!\d)")
# Probabilities nearer to 0 or 1 are not believed: one year alone must not outweigh all others.
_SUREST = 0.99
# Bytes of one array [year, class, pixel] of a strip.
_STRIP_BYTES = 64_000_000
_PERCENT = 100
MIN_MAPS = 2


@dataclass(frozen=True, eq=False)
class AnnualMaps:
    """Class maps of one legend on one grid, a year each, in the order of the years."""

    paths: tuple[Path, ...]
    years: tuple[int, ...]
    scheme: ClassScheme
    grid: Grid


@dataclass(frozen=True, eq=False)
class ConsistentStrip:
    """Consistent maps of a window, uint8 [year, row, col]: codes, and their confidence in per cent, 255 nodata."""

    window: Window
    seen: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


def annual_maps(paths: Sequence[Path], *, years: Sequence[int] = ()) -> AnnualMaps:
    """Maps in the order of their years, which are those given, or those in their file names.

    Raises:
        ReferenceDataError: fewer than two maps, a name without a year or with several, one year twice.
        LegendError: maps of different legends.
        GridError: maps on different pixels.
    """
    if len(paths) < MIN_MAPS or (years and len(years) != len(paths)):
        raise ReferenceDataError(
            "series of annual maps",
            got=f"{len(paths)} maps, {len(years)} years",
            expected="two maps or more, a year each",
        )
    found = list(years) or [_year_of(path) for path in paths]
    if len(set(found)) < len(found):
        twice = next(year for year in found if found.count(year) > 1)
        raise ReferenceDataError(f"two maps of the year {twice}", fix="name the years with --years, one for each map")
    order = sorted(range(len(paths)), key=lambda i: found[i])
    paths = [paths[i] for i in order]
    scheme = check_same_legend(paths)
    grids = []
    for path in paths:
        with open_class_map(path) as dataset:
            grids.append(Grid.of(dataset))
        if not grids[-1].same_pixels_as(grids[0]):
            raise GridError(
                f"map lies on other pixels than {paths[0].name}", path=path, fix="warp it there: gdalwarp -tap"
            )
    return AnnualMaps(tuple(paths), tuple(sorted(found)), scheme, grids[0])


def _year_of(path: Path) -> int:
    years = {int(text) for text in _YEAR.findall(path.stem)}
    if len(years) != 1:
        got = ", ".join(map(str, sorted(years))) or "none"
        raise ReferenceDataError("year in the name of the map", path=path, got=got, fix="name the years with --years")
    return years.pop()


def read_costs(path: Path | None, scheme: ClassScheme, *, change: float = CHANGE_COST) -> NDArray[np.float64]:
    """Cost of each change from one year to the next, float64 [from, to], 0 on the diagonal, inf for what is illogical.

    Every change costs ``change`` but those of a CSV with columns ``from,to,cost``: class names or ``*``, a number or
    ``never``; later rows win. A change of cost c needs evidence of e^c : 1.

    Raises:
        ConfigError: other columns, unknown classes, negative costs.
    """
    costs = np.full((len(scheme), len(scheme)), float(change))
    rows: list[dict[str, str]] = []
    if path is not None:
        try:
            text = read_file(path, what="costs of changes", error=ConfigError).decode("utf-8-sig")
            rows = list(csv.DictReader(text.splitlines()))
        except (UnicodeDecodeError, csv.Error) as err:
            raise ConfigError("costs of changes cannot be read", path=path, got=err) from err
        if not rows or not {"from", "to", "cost"} <= set(rows[0]):
            raise ConfigError("costs of changes have other columns", path=path, expected="from,to,cost")
    for number, row in enumerate(rows, 2):
        if None in row:
            what = f"line {number} of the costs has more than three columns"
            raise ConfigError(what, path=path, expected="from,to,cost", fix="write decimals with a point")
        ends = [_indices(row[key] or "", scheme, path) for key in ("from", "to")]
        costs[np.ix_(*ends)] = _cost(row["cost"] or "", path)
    np.fill_diagonal(costs, 0.0)
    return costs


def _indices(name: str, scheme: ClassScheme, path: Path | None) -> list[int]:
    if name.strip() == ANY:
        return list(range(len(scheme)))
    if name.strip() not in scheme.names:
        raise ConfigError(f"cost of unknown class {name!r}", path=path, expected=", ".join((*scheme.names, ANY)))
    return [scheme.names.index(name.strip())]


def _cost(text: str, path: Path | None) -> float:
    if text.strip() == NEVER:
        return math.inf
    try:
        cost = float(text)
    except ValueError:
        cost = -1.0
    if not 0 <= cost < math.inf:
        raise ConfigError("cost of a change", path=path, got=text, expected=f"0 or more, or {NEVER!r}")
    return cost


def consistent_strips(
    maps: AnnualMaps, costs: NDArray[np.float64], *, accuracy: float = MAP_ACCURACY
) -> Iterator[ConsistentStrip]:
    """The consistent maps, strip by strip: memory does not grow with the maps.

    A pixel without a class in some years gets one from the others; in no year it stays nodata.

    Raises:
        SceneError: a map, or a layer beside it, cannot be read.
    """
    years, classes = len(maps.years), len(maps.scheme)
    rows = max(_STRIP_BYTES // (4 * years * classes * maps.grid.width), 1)
    # Over several years a change has as many chances.
    steps = [np.exp(-costs) / np.exp(-costs).sum(axis=1, keepdims=True)] * (years - 1)
    gaps = np.diff(maps.years)
    steps = [np.linalg.matrix_power(step, int(gap)) for step, gap in zip(steps, gaps, strict=True)]
    with ExitStack() as stack:
        opened = [_open_year(path, stack) for path in maps.paths]
        for whole in strips(maps.grid):
            for first in range(whole.row, whole.row_stop, rows):
                window = type(whole)(first, 0, min(rows, whole.row_stop - first), whole.width)
                seen = np.stack([read_codes(dataset, window) for dataset, _ in opened])
                cost = np.stack(
                    [
                        _cost_of_classes(codes, layer, window, maps.scheme, accuracy)
                        for codes, (_, layer) in zip(seen, opened, strict=True)
                    ]
                )
                path, sure = most_likely(cost, steps)
                shape, blank = seen.shape, (seen == NODATA).all(axis=0)
                codes = np.where(blank, np.uint8(NODATA), maps.scheme.index_to_code[path].reshape(shape))
                percent = np.where(blank, np.uint8(255), np.rint(_PERCENT * sure).astype(np.uint8).reshape(shape))
                yield ConsistentStrip(window, seen, codes.astype(np.uint8), percent.astype(np.uint8))


def _open_year(path: Path, stack: ExitStack) -> tuple[DatasetReader, DatasetReader | None]:
    """A map, and its probabilities or confidence where they lie beside it on its pixels."""
    dataset = stack.enter_context(open_class_map(path))
    files = scene_files(path)
    beside = files.probabilities or files.layers.get("confidence")
    if beside is None:
        return dataset, None
    with as_error(SceneError, "layer cannot be read", path=beside):
        layer = stack.enter_context(rasterio.open(beside))
    return dataset, layer if layer.shape == dataset.shape else None


def _cost_of_classes(
    codes: NDArray[np.uint8], layer: DatasetReader | None, window: Window, scheme: ClassScheme, accuracy: float
) -> NDArray[np.float32]:
    """-log p float32 [class, pixel] of what one map says; 0 for all classes where it says nothing."""
    classes, flat = len(scheme), codes.ravel()
    if layer is not None and layer.count == classes > 1:
        percent = layer.read(window=window.to_rasterio()).reshape(classes, -1)
        p = np.where(percent <= _PERCENT, percent.astype(np.float32), np.float32(1.0))
        p /= np.maximum(p.sum(axis=0), np.float32(1e-6))
    else:
        sure = np.full(flat.shape, accuracy, dtype=np.float32)
        if layer is not None:
            percent = layer.read(1, window=window.to_rasterio()).ravel()
            sure = np.where(percent <= _PERCENT, percent.astype(np.float32) / _PERCENT, sure)
        sure = np.maximum(sure, np.float32(1.0 / classes))
        is_class = flat == np.array(scheme.codes, dtype=np.uint8)[:, None]
        p = np.where(is_class, sure, (1 - sure) / max(classes - 1, 1)).astype(np.float32)
    cost = -np.log(np.clip(p, (1 - _SUREST) / max(classes - 1, 1), _SUREST))
    cost[:, flat == NODATA] = 0.0
    return np.asarray(cost, dtype=np.float32)


def most_likely(
    cost: NDArray[np.float32], steps: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The most likely class of each year, intp [year, pixel], and its probability given all years, float32.

    ``cost`` float32 [year, class, pixel] is -log of the probability of what is seen given the class; ``steps`` float64
    [from, to] are the probabilities of changes for each pair of years, rows sum to 1.
    """
    years, classes, pixels = cost.shape
    best, back = cost[0].copy(), np.zeros((years, classes, pixels), dtype=np.uint8)
    with np.errstate(divide="ignore"):
        prices = [-np.log(step).astype(np.float32) for step in steps]
    for year in range(1, years):
        arrived = np.empty_like(best)
        for to in range(classes):
            ways = best + prices[year - 1][:, to, None]
            back[year, to] = ways.argmin(axis=0)
            arrived[to] = ways.min(axis=0)
        best = arrived + cost[year]
    path = np.empty((years, pixels), dtype=np.intp)
    path[-1] = best.argmin(axis=0)
    for year in range(years - 1, 0, -1):
        path[year - 1] = back[year, path[year], np.arange(pixels)]
    return path, _posterior(np.exp(-cost), steps, path)


def _posterior(
    seen: NDArray[np.float32], steps: Sequence[NDArray[np.float64]], path: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Probability of the path's class given all years, float32 [year, pixel]: forward-backward, scaled each year."""
    forward = seen.copy()
    forward[0] /= forward[0].sum(axis=0)
    for year in range(1, len(seen)):
        forward[year] *= steps[year - 1].T.astype(np.float32) @ forward[year - 1]
        forward[year] /= forward[year].sum(axis=0)
    sure, behind, every = np.empty(path.shape, dtype=np.float32), np.ones_like(seen[0]), np.arange(path.shape[1])
    for year in range(len(seen) - 1, -1, -1):
        both = forward[year] * behind
        sure[year] = both[path[year], every] / both.sum(axis=0)
        if year:
            behind = steps[year - 1].astype(np.float32) @ (seen[year] * behind)
            behind /= behind.sum(axis=0)
    return sure


class TransitionCounter:
    """Area in ha of every change from year to year, before (in the maps) and after (in the consistent ones)."""

    def __init__(self, maps: AnnualMaps) -> None:
        self._maps = maps
        shape = len(maps.years) - 1, CODES, CODES
        self.before, self.after = np.zeros(shape), np.zeros(shape)
        self.flickers_ha, self.filled_ha = [0.0, 0.0], 0.0

    def add(self, strip: ConsistentStrip) -> None:
        """Count a strip."""
        areas = self._maps.grid.pixel_areas_ha(strip.window)
        for number, (codes, table) in enumerate(((strip.seen, self.before), (strip.codes, self.after))):
            for year in range(len(codes) - 1):
                pair = codes[year].astype(np.uint16) * np.uint16(CODES) + codes[year + 1]
                table[year] += areas_by_code(pair, areas, size=CODES * CODES)[1].reshape(CODES, CODES)
            there = (
                (codes[:-2] == codes[2:])
                & (codes[1:-1] != codes[2:])
                & (codes[:-2] != NODATA)
                & (codes[1:-1] != NODATA)
            )
            self.flickers_ha[number] += float((there.sum(axis=0) * areas).sum())
        filled = (strip.seen == NODATA) & (strip.codes != NODATA)
        self.filled_ha += float((filled.sum(axis=0) * areas).sum())

    def rows(self, costs: NDArray[np.float64]) -> list[dict[str, object]]:
        """Every change that a map shows, JSON-ready: the largest before first."""
        scheme, years = self._maps.scheme, self._maps.years
        found: list[dict[str, object]] = []
        for i, one in enumerate(scheme.classes):
            for j, other in enumerate(scheme.classes):
                for year in range(len(years) - 1):
                    before, after = (float(table[year, one.code, other.code]) for table in (self.before, self.after))
                    if i != j and before + after > 0:
                        found.append({
                            "from": one.name, "to": other.name, "from_year": years[year], "to_year": years[year + 1],
                            "before_ha": before, "after_ha": after, "illogical": bool(np.isinf(costs[i, j])),
                        })  # fmt: skip
        return sorted(found, key=lambda row: -float(str(row["before_ha"])))
