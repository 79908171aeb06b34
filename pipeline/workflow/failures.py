"""Where the map fails on the test polygons: near edges, in small patches, in which blocks, in which polygons surely."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.accuracy.assess_reference import ReferenceUnits
from pipeline.diagnostics.failure import (
    block_style,
    where_it_fails,
    write_block_accuracy,
    write_surely_wrong,
    wrong_style,
)
from pipeline.errors import OutputError
from pipeline.legend import NODATA
from pipeline.maps.vectors import add_layer_style
from pipeline.workflow.scoring import at_pixels, held_out

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.workflow.job import Job

LABEL = "not a probability sample"
BLOCKS, SURELY_WRONG = "block_accuracy.gpkg", "surely_wrong.gpkg"
# Test pixels of a scene whose surroundings are looked at, drawn at random: a window of the map is read for each.
SURROUNDED_PIXELS = 2000
# Side of the squares where the split has no blocks.
_BLOCK_PX = 256


def find_failures(job: Job, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Figures for ``accuracy.json``, and the files ``block_accuracy.gpkg`` and ``surely_wrong.gpkg``.

    All of them are about held-out training polygons, which are no probability sample: they show where to look, not how
    good the map is there; figures and every row of the files carry that label.

    Returns:
        {"label", "scenes": {scene: {"by": [accuracy by distance to an edge, by patch size], "blocks": [...]}}}, and the
        files written; no files where no test polygon has a mapped pixel.
    """
    scenes: dict[str, Any] = {}
    blocks, wrong = [], []
    with tempfile.TemporaryDirectory() as beside:
        for number, pixels in held_out(job):
            name = job.sources[number].id
            units = units_of(pixels, at_pixels(job.map_of(name), pixels))
            if not len(units):
                continue
            found = where_it_fails(job.map_of(name), _some(units, seed=job.config.split.seed))
            squares = _blocks(job, number, units, Path(beside) / "blocks.gpkg")
            scenes[name] = {"by": [item.to_json() for item in found], "blocks": _rows(squares)}
            blocks.append(squares.assign(scene=name))
            wrong.append(_surely_wrong(job, name, pixels, Path(beside) / "wrong.gpkg").assign(scene=name))
    files = []
    if blocks:
        files = [
            _write(folder / BLOCKS, blocks, style=block_style()),
            _write(folder / SURELY_WRONG, wrong, style=wrong_style(job.scheme), by="sureness"),
        ]
    return {"label": LABEL, "scenes": scenes}, files


def units_of(pixels: LabelledPixels, mapped: np.ndarray[Any, np.dtype[np.uint8]]) -> ReferenceUnits:
    """Test pixels as reference units, those without a class in the map left out; a unit's id is its polygon's."""
    seen = pixels.select(mapped != NODATA)
    transform = seen.grid.transform
    return ReferenceUnits(
        kind="points",
        id=tuple(map(str, seen.polygon.tolist())),
        row=seen.row,
        col=seen.col,
        x=np.asarray(transform.c + transform.a * (seen.col + 0.5), dtype=np.float64),
        y=np.asarray(transform.f + transform.e * (seen.row + 0.5), dtype=np.float64),
        map_code=mapped[mapped != NODATA],
        reference_code=seen.code,
    )


def _some(units: ReferenceUnits, *, seed: int) -> ReferenceUnits:
    if len(units) <= SURROUNDED_PIXELS:
        return units
    mask = np.zeros(len(units), dtype=np.bool_)
    mask[np.random.default_rng(seed).choice(len(units), SURROUNDED_PIXELS, replace=False)] = True
    return units.keep(mask, dict.fromkeys(np.flatnonzero(~mask).tolist(), "not drawn"))


def _blocks(job: Job, number: int, units: ReferenceUnits, beside: Path) -> GeoDataFrame:
    """Squares as large as the blocks of the split, from the corner of the scene."""
    import geopandas

    grid = job.sources[number].grid
    block_px = max(round(job.split.block_m / max(grid.pixel_size_m)), 1) if job.split.block_m else _BLOCK_PX
    write_block_accuracy(beside, units, grid=grid, block_px=block_px, overwrite=True)
    return geopandas.read_file(beside)


def _rows(squares: GeoDataFrame) -> list[dict[str, Any]]:
    """Blocks as rows of JSON: bounds in the map's CRS, units, share right."""
    return [
        {"bounds": [float(value) for value in row.geometry.bounds], "units": int(row.units), "accuracy": row.accuracy}
        for row in squares.itertuples()
    ]


def _surely_wrong(job: Job, name: str, pixels: LabelledPixels, beside: Path) -> GeoDataFrame:
    """Test polygons of a scene that the map calls something else; ``polygon`` is the id in ``labels.gpkg``."""
    import geopandas

    write_surely_wrong(
        beside, job.labels.frame, pixels=pixels, map_path=job.map_of(name),
        confidence_path=job.confidence_of(name), scheme=job.scheme, overwrite=True,
    )  # fmt: skip
    return geopandas.read_file(beside)


def _write(path: Path, parts: list[GeoDataFrame], *, style: str, by: str | None = None) -> Path:
    """All scenes in one layer with its style, in the CRS of the first, every row labelled; whole or not at all."""
    import geopandas
    import pandas as pd

    whole = pd.concat([part.to_crs(parts[0].crs) for part in parts], ignore_index=True)
    if by is not None:
        whole = whole.sort_values(by, ascending=False, ignore_index=True)
    frame = geopandas.GeoDataFrame(whole.assign(sampling=LABEL), geometry="geometry", crs=parts[0].crs)
    part = path.with_name(f".{path.stem}.part.gpkg")
    try:
        part.unlink(missing_ok=True)
        # The kind of geometry is said, as a layer without a wrong polygon has none to show it.
        frame.to_file(part, layer=path.stem, driver="GPKG", engine="pyogrio", geometry_type=_kind(frame))
        add_layer_style(part, layer=path.stem, style=style)
        part.replace(path)
    except (OSError, sqlite3.Error) as err:
        raise OutputError("cannot write where the map fails", path=path, got=err) from err
    return path


def _kind(frame: GeoDataFrame) -> str:
    """Polygons, or parts of them where one has several."""
    return "MultiPolygon" if (frame.geom_type == "MultiPolygon").any() else "Polygon"
