"""Maps read on another grid, a few of them open at a time: of a thousand tiles, a window touches a handful."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import rasterio
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from pipeline.errors import InputError
from pipeline.grid import Grid, Window
from pipeline.raster import on_grid

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

# Files that are open at once; systems allow 256 to 1,024 per process, of which others need some.
MOST_OPEN = 48


class WarpedMaps:
    """Bands of uint8 read on one grid, nearest pixel; a context manager.

    The files that were read last stay open, MOST_OPEN of them; others are opened again when they are wanted.

    Args:
        grid: On which they are read.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._open: OrderedDict[Path, tuple[Any, ExitStack]] = OrderedDict()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        try:
            pixels: NDArray[np.uint8] = dataset.read(1, window=window.to_rasterio())
        except (RasterioError, OSError) as err:
            raise InputError("map cannot be read", path=path, got=err) from err
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
            dataset = stack.enter_context(open_map(path))
            warped = on_grid(dataset, self._grid, nodata=nodata, tolerance_px=0.01)
            return stack.enter_context(warped), stack.pop_all()

    def _close_oldest(self) -> None:
        _, (_, stack) = self._open.popitem(last=False)
        stack.close()


def grid_of(path: Path) -> Grid:
    """The grid of a map's file.

    Raises:
        InputError: it cannot be opened.
    """
    with open_map(path) as dataset:
        return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)


def open_map(path: Path) -> Any:
    """A map's file, to be closed by the caller.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        return rasterio.open(path)
    except (RasterioError, OSError) as err:
        raise InputError("map cannot be opened", path=path, got=err) from err
