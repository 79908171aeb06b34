"""ChipIndex: the table of chips, kept as Parquet for the program and as GeoPackage to look at in QGIS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
from affine import Affine

from pipeline.documents import parse_json
from pipeline.errors import InputError, OutputError
from pipeline.files import whole_file
from pipeline.grid import Grid, Window
from pipeline.legend import ClassScheme
from pipeline.maps.vectors import PackageLayer, write_geopackage

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


_ABOUT = b"landcover_chips"
UNLABELLED = "unlabelled"
"""Part of chips that lie anywhere and get soft labels."""


@dataclass(frozen=True, eq=False)
class ChipIndex:
    """Chips: which window of which scene, for which part, with which labels."""

    # One row per chip: scene (id), part (train, validation, unlabelled), row, col, height, width (pixels on the scene's
    # grid), polygons (list of ids), px_<code> (labelled pixels of each class of the chip's own part)
    frame: pd.DataFrame
    scheme: ClassScheme  # The legend
    grids: Mapping[str, Grid]  # Scene id -> grid

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.frame)

    @staticmethod
    def columns(scheme: ClassScheme) -> list[str]:
        """Column names of the frame."""
        return ["scene", "part", "row", "col", "height", "width", "polygons", *(f"px_{c}" for c in scheme.codes)]

    @property
    def chip_px(self) -> int:
        """Side of the chips in pixels.

        Raises:
            InputError: no chip, or chips of several sizes.
        """
        sides = {int(side) for name in ("height", "width") for side in self.frame[name].unique()}
        if len(sides) != 1:
            raise InputError("chip index", got=f"chips of {sorted(sides) or 'no'} pixels", expected="one size")
        return sides.pop()

    def windows(self) -> list[tuple[str, Window]]:
        """(scene id, window) of every chip, in order."""
        columns = [self.frame[name] for name in ("scene", "row", "col", "height", "width")]
        return [(str(s), Window(int(r), int(c), int(h), int(w))) for s, r, c, h, w in zip(*columns, strict=True)]

    def footprints(self, scene: str) -> Any:
        """GeoDataFrame of one scene's chips with their outlines in the scene's CRS; the part is called ``split``."""
        import geopandas as gpd

        grid = self.grids[scene]
        own = self.frame[self.frame["scene"] == scene]
        boxes = [shapely.box(*grid.crop(window).bounds) for name, window in self.windows() if name == scene]
        table = own.assign(polygons=[" ".join(map(str, ids)) for ids in own["polygons"]]).rename(
            columns={"part": "split"}
        )
        return gpd.GeoDataFrame(table, geometry=boxes, crs=str(grid.crs))


def write_index(path: Path | str, index: ChipIndex) -> Path:
    """Write the index: ``.parquet`` (all of it) or ``.gpkg`` (outlines, one layer per scene, to look at).

    Raises:
        OutputError: another ending, or a folder that cannot be written.
    """
    path = Path(path)
    if path.suffix not in {".parquet", ".gpkg"}:
        raise OutputError("chip index of another format", path=path, expected=".parquet or .gpkg")
    if path.suffix == ".gpkg":
        layers = [PackageLayer(scene, index.footprints(scene)) for scene in index.grids]
        return write_geopackage(path, layers, what="the chip index")
    with whole_file(path, what="the chip index") as part:
        _write_parquet(part, index)
    return path


def read_index(path: Path | str) -> ChipIndex:
    """Read an index written by :func:`write_index` as ``.parquet``.

    Raises:
        InputError: no such file, or not a chip index.
    """
    import pyarrow as pa
    from pyarrow import parquet
    from rasterio.crs import CRS

    path = Path(path)
    try:
        table = parquet.read_table(path)
        about = parse_json(table.schema.metadata[_ABOUT])
    except (InputError, pa.ArrowException, OSError, KeyError, TypeError, ValueError) as err:
        raise InputError("not a chip index", path=path, got=err, fix="make it again with landcover chips") from err
    grids = {
        scene: Grid(CRS.from_wkt(item["crs"]), Affine(*item["transform"]), *item["shape"])
        for scene, item in about["grids"].items()
    }
    frame = table.to_pandas()
    frame["polygons"] = [[int(i) for i in ids] for ids in frame["polygons"]]
    return ChipIndex(frame, ClassScheme.from_json(about["scheme"]), grids)


def _write_parquet(path: Path, index: ChipIndex) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    grids = {
        scene: {"crs": grid.crs.to_wkt(), "transform": list(grid.transform)[:6], "shape": list(grid.shape)}
        for scene, grid in index.grids.items()
    }
    table = pa.Table.from_pandas(index.frame, preserve_index=False)
    about = json.dumps({"grids": grids, "scheme": index.scheme.to_json()}).encode()
    parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), _ABOUT: about}), path)
