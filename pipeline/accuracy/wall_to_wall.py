"""Two maps compared on every pixel, strip by strip: memory for a strip of rows, whatever the maps' size."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from pipeline.accuracy.confusion import ErrorMatrix
from pipeline.accuracy.crosswalk import BLANK, check_known, to_codes
from pipeline.accuracy.estimates import CENSUS, ClassFigures, Estimate, Figures
from pipeline.accuracy.frame import Frame
from pipeline.accuracy.framing import Framing
from pipeline.accuracy.pixels import CODES, class_areas, grid_of, open_class_map, read_codes, strips
from pipeline.accuracy.strata import aligned
from pipeline.errors import LegendError, PipelineError, ReferenceDataError, SceneError
from pipeline.legend import NODATA
from pipeline.maps.legends import read_scheme

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme


@dataclass(frozen=True, eq=False)
class CrossTable:
    """Pixels int64 [first code, second code] and area in ha float64 of the same shape, codes 0..255 of two maps."""

    pixels: NDArray[np.int64]
    area_ha: NDArray[np.float64]


def cross_maps(first: Path | str, second: Path | str) -> CrossTable:
    """Pairs of codes of two class maps on the pixels of the first; the second is resampled by nearest neighbour.

    Raises:
        SceneError: a map cannot be read.
    """
    pixels = np.zeros(CODES * CODES, dtype=np.int64)
    area: NDArray[np.float64] = np.zeros(CODES * CODES)
    with ExitStack() as stack:
        one = stack.enter_context(open_class_map(first))
        grid = grid_of(one)
        two = aligned(stack.enter_context(open_class_map(second)), grid, stack)
        for window in strips(grid, one.block_shapes[0][0]):
            pair = read_codes(one, window).astype(np.uint16)
            pair <<= 8
            pair |= read_codes(two, window)
            counts = np.bincount(pair.ravel(), minlength=CODES * CODES)
            pixels += counts
            if grid.crs.is_geographic:
                rows = grid.pixel_area_ha(window)
                for values, ha in zip(pair, rows, strict=True):
                    area += np.bincount(values, minlength=CODES * CODES) * ha
        if not grid.crs.is_geographic:
            area = np.asarray(pixels * float(grid.pixel_area_ha()[0]))
    return CrossTable(pixels.reshape(CODES, CODES), area.reshape(CODES, CODES))


def compare_with_raster(
    map_path: Path | str, reference: Path | str, *, scheme: ClassScheme, crosswalk: Mapping[str, str] | None = None
) -> tuple[Figures, Framing, float]:
    """Agreement of a map with a reference raster on every pixel where both have a class, and that area in ha.

    Every pixel is compared, so there is no sampling error, and no interval; what remains unknown is how good the
    reference is.

    Raises:
        ReferenceDataError: no pixel has a class in both.
        LegendError: codes of the reference that neither its own legend nor the crosswalk leads to a class of the map.
    """
    table = cross_maps(map_path, reference)
    present = np.flatnonzero(table.pixels.sum(axis=0))
    codes = _reference_codes(reference, present, scheme, crosswalk)
    rows = list(scheme.codes)
    counts, area = np.zeros((len(scheme), len(scheme)), dtype=np.int64), np.zeros((len(scheme), len(scheme)))
    for code, target in zip(present, codes, strict=True):
        if target > BLANK:
            counts[:, scheme.code_to_index[target]] += table.pixels[rows, code]
            area[:, scheme.code_to_index[target]] += table.area_ha[rows, code]
    if not counts.sum():
        raise ReferenceDataError("no pixel has a class both in the map and in the reference", path=reference)
    total = float(area.sum())
    frame = Frame("census", np.zeros(1, dtype=np.intp), np.array([counts.sum()], dtype=np.float64), ("all",))
    words = (
        f"All {counts.sum():,} pixels with a class in both rasters were compared: the figures are agreement with the "
        "reference raster, without sampling error; its own errors are not known."
    )
    _, mapped = class_areas(map_path)
    covered = total / float(mapped[NODATA + 1 :].sum())
    notes = () if covered > 0.9999 else (f"the reference covers {covered:.1%} of the map's area",)  # noqa: PLR2004
    return _figures(ErrorMatrix(scheme.names, counts, area / total)), Framing(frame, words, notes), total


def _reference_codes(
    path: Path | str, present: NDArray[np.intp], scheme: ClassScheme, crosswalk: Mapping[str, str] | None
) -> NDArray[np.int16]:
    """Map codes of the reference's codes: by crosswalk, else by the names in its own legend, else as they are."""
    labels = {int(code): str(code) for code in present}
    try:
        names = {item.code: item.name for item in read_scheme(path).classes}
    except (LegendError, PipelineError):
        names = {}
    for code, name in names.items():
        if code in labels and labels[code] not in (crosswalk or {}):
            labels[code] = name
    with _opened(path) as dataset:
        empty = dataset.nodata
    keeps_zero = "0" in (crosswalk or {}) and empty != NODATA
    values: list[object] = [None if code == NODATA and not keeps_zero else labels[int(code)] for code in present]
    codes, unknown = to_codes(values, scheme=scheme, crosswalk=crosswalk)
    check_known(unknown, scheme=scheme, path=path)
    return codes


def _opened(path: Path | str) -> rasterio.DatasetReader:
    try:
        return rasterio.open(path)
    except RasterioError as err:
        raise SceneError("reference is not a raster that GDAL can open", path=path, got=err) from err


def _figures(matrix: ErrorMatrix) -> Figures:
    share = matrix.proportions
    hit, mapped, truth = np.diag(share), share.sum(axis=1), share.sum(axis=0)

    def figure(top: float, bottom: float) -> Estimate:
        return Estimate(top / bottom, note=CENSUS) if bottom > 0 else Estimate(None, note="no pixel of this class")

    per_class = {
        name: ClassFigures(
            figure(hit[k], mapped[k]),
            figure(hit[k], truth[k]),
            figure(2 * hit[k], mapped[k] + truth[k]),
            Estimate(float(truth[k]), note=CENSUS),
        )
        for k, name in enumerate(matrix.names)
    }
    return Figures(Estimate(float(hit.sum()), note=CENSUS), per_class, matrix, ())
