"""Many maps joined into one on one grid, window by window, with a rule for where they overlap.

Codes are resampled to the nearest pixel, never interpolated. Maps in several CRSs (two UTM zones) need a target grid
that was chosen: nobody's zone is right for both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

from pipeline.errors import ConfigError, GridError, InputError, LegendError
from pipeline.files import Closing
from pipeline.grid import Grid, Window
from pipeline.inference.rows import RowStore
from pipeline.legend import NODATA
from pipeline.maps.legends import LEGEND_HASH_TAG
from pipeline.maps.style import PERCENT_NODATA
from pipeline.raster import as_error, grid_of, on_grid

if TYPE_CHECKING:
    from rasterio.crs import CRS

    from pipeline.inference.settings import MosaicRule

# Files that are open at once; systems allow 256 to 1,024 per process, of which others need some.
MOST_OPEN = 48
_WINDOW_PX = 2048
_CACHE_BYTES = 128_000_000


@dataclass(frozen=True)
class MapFile:
    """One map to join."""

    codes: Path  # Class map
    confidence: Path | None = None  # Its confidence in percent, or None
    acquired_utc: datetime | None = None  # Time of its scene, for the rule "latest"


@dataclass
class Mosaic:
    """One map of many, as rows on disk."""

    grid: Grid
    codes: RowStore
    confidence: RowStore | None = None
    sources_used: list[str] = field(default_factory=list)

    def remove(self) -> None:
        """Close and delete the stores."""
        for store in (self.codes, self.confidence):
            if store is not None:
                store.close()
                store.path.unlink(missing_ok=True)


def target_grid(maps: Sequence[MapFile], *, crs: CRS | None = None, pixel_size: float | None = None) -> Grid:
    """The grid that holds all maps: in ``crs``, with the finest of their pixels unless ``pixel_size`` is given.

    Pixel edges lie on multiples of the pixel size, or on the first map's own pixels where CRS and size are its own.

    Raises:
        GridError: the maps have several CRSs and none is chosen.
    """
    grids = [grid_of(item.codes) for item in maps]
    found = {str(grid.crs) for grid in grids}
    if crs is None and len(found) > 1:
        fix = "choose the CRS of the mosaic, such as EPSG:3035"
        raise GridError("maps have several CRSs", got=", ".join(sorted(found)), fix=fix)
    chosen = crs or grids[0].crs
    own = [grid for grid in grids if grid.crs == chosen]
    size = pixel_size or min(grid.pixel_size[0] for grid in own or grids)
    if not own and pixel_size is None and chosen.is_geographic != grids[0].crs.is_geographic:
        raise GridError(f"pixel size of a mosaic in {chosen}", fix="give it in units of that CRS")
    frames = [
        g.bounds if g.crs == chosen else transform_bounds(g.crs, chosen, *g.bounds, densify_pts=21) for g in grids
    ]
    anchor = own[0].bounds if own else (0.0, 0.0, 0.0, 0.0)
    left, bottom = (anchor[i] + np.floor((min(f[i] for f in frames) - anchor[i]) / size + 1e-6) * size for i in (0, 1))
    right, top = (anchor[i] + np.ceil((max(f[i + 2] for f in frames) - anchor[i]) / size - 1e-6) * size for i in (0, 1))
    height, width = round((top - bottom) / size), round((right - left) / size)
    return Grid(chosen, Affine(size, 0.0, float(left), 0.0, -size, float(top)), height, width)


def join_maps(maps: Sequence[MapFile], *, grid: Grid, rule: MosaicRule, out: Path) -> Mosaic:
    """Join class maps (and their confidence where all have it) on ``grid``; nodata gives way to any class.

    ``maps`` come in order of precedence for the rule "first", and for what the other rules leave undecided:
    "confidence" takes the surest class, "latest" that of the newest scene. The stores go into ``out``.

    Raises:
        LegendError: the maps have different legends.
        ConfigError: the rule needs confidence or dates that a map lacks.
    """
    if not maps:
        raise ConfigError("mosaic of no maps", expected="at least one")
    _check_legends(maps)
    ordered = _ordered(maps, rule)
    with_confidence = all(item.confidence is not None for item in maps)
    out.mkdir(parents=True, exist_ok=True)
    mosaic = Mosaic(grid, RowStore.create(out / "mosaic_codes.u8", shape=grid.shape, fill=NODATA))
    try:
        if with_confidence:
            path = out / "mosaic_confidence.u8"
            mosaic.confidence = RowStore.create(path, shape=grid.shape, fill=PERCENT_NODATA)
        _fill(mosaic, ordered, surest=rule == "confidence")
    except BaseException:
        mosaic.remove()
        raise
    return mosaic


def _fill(mosaic: Mosaic, ordered: Sequence[MapFile], *, surest: bool) -> None:
    used: dict[str, None] = {}
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES), WarpedMaps(mosaic.grid) as warped:
        extents = [warped.extent(item.codes) for item in ordered]
        for window in mosaic.grid.tiles(_WINDOW_PX):
            present = [
                item for item, extent in zip(ordered, extents, strict=True) if extent and extent.intersect(window)
            ]
            if not present:
                continue
            codes, sure = _join(present, window, warped, with_confidence=mosaic.confidence is not None, surest=surest)
            used |= dict.fromkeys(str(item.codes) for item in present)
            mosaic.codes.write(window, codes)
            if mosaic.confidence is not None:
                mosaic.confidence.write(window, sure)
    mosaic.sources_used = list(used)


def _join(
    maps: Sequence[MapFile], window: Window, warped: WarpedMaps, *, with_confidence: bool, surest: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    codes = np.full(window.shape, NODATA, dtype=np.uint8)
    sure = np.full(window.shape, PERCENT_NODATA, dtype=np.uint8)
    for item in maps:
        new = warped.read(item.codes, window, nodata=NODATA)
        take = (codes == NODATA) & (new != NODATA)
        if with_confidence and item.confidence is not None:
            new_sure = warped.read(item.confidence, window, nodata=PERCENT_NODATA)
            if surest:
                take |= (new != NODATA) & (codes != NODATA) & (new_sure > sure) & (new_sure != PERCENT_NODATA)
            sure[take] = new_sure[take]
        codes[take] = new[take]
    return codes, sure


def _ordered(maps: Sequence[MapFile], rule: MosaicRule) -> list[MapFile]:
    if rule == "confidence":
        without = [item.codes for item in maps if item.confidence is None]
        if without:
            raise ConfigError("map without confidence", got=without[0], fix="use the rule latest or first")
    if rule == "latest":
        without = [item.codes for item in maps if item.acquired_utc is None]
        if without:
            raise ConfigError("map of a scene without date", got=without[0], fix="use the rule confidence or first")
        oldest = datetime.min.replace(tzinfo=UTC)
        return sorted(maps, key=lambda item: item.acquired_utc or oldest, reverse=True)
    return list(maps)


def _check_legends(maps: Sequence[MapFile]) -> None:
    legends: dict[str | None, Path] = {}
    for item in maps:
        with as_error(InputError, "map cannot be opened", path=item.codes), rasterio.open(item.codes) as dataset:
            legends.setdefault(dataset.tags().get(LEGEND_HASH_TAG), item.codes)
    if len(legends) > 1 or None in legends:
        got = "; ".join(f"{path.name}: {legend or 'none'}" for legend, path in legends.items())
        fix = "map them with one model, or give them one legend first"
        raise LegendError("maps of a mosaic must have one legend", got=got, fix=fix)


class WarpedMaps(Closing):
    """Bands of uint8 read on one grid, nearest pixel; a context manager.

    The files that were read last stay open, MOST_OPEN of them; others are opened again when they are wanted.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._open: OrderedDict[Path, tuple[Any, ExitStack]] = OrderedDict()

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._close_oldest()

    def extent(self, path: Path) -> Window | None:
        """Where a map lies on the grid; None where it lies beside it. The file is not kept open."""
        own, grid = grid_of(path), self._grid
        frame = own.bounds if own.crs == grid.crs else transform_bounds(own.crs, grid.crs, *own.bounds, densify_pts=21)
        return grid.window_of_bounds(frame)

    def read(self, path: Path, window: Window, *, nodata: int) -> NDArray[np.uint8]:
        """The first band of a file, uint8 [row, col], ``nodata`` where it has none.

        Raises:
            InputError: the file cannot be opened or read.
        """
        dataset = self._dataset(path, nodata)
        with as_error(InputError, "map cannot be read", path=path):
            pixels: NDArray[np.uint8] = dataset.read(1, window=window.to_rasterio())
        return pixels

    def _dataset(self, path: Path, nodata: int) -> Any:
        if path not in self._open:
            while len(self._open) >= MOST_OPEN:
                self._close_oldest()
            self._open[path] = self._warp(path, nodata)
        self._open.move_to_end(path)
        return self._open[path][0]

    def _warp(self, path: Path, nodata: int) -> tuple[Any, ExitStack]:
        with ExitStack() as stack:
            with as_error(InputError, "map cannot be opened", path=path):
                dataset = stack.enter_context(rasterio.open(path))
            warped = on_grid(dataset, self._grid, nodata=nodata, tolerance_px=0.01)
            return stack.enter_context(warped), stack.pop_all()

    def _close_oldest(self) -> None:
        _, (_, stack) = self._open.popitem(last=False)
        stack.close()
