"""Write vectors: the polygons of a map, and layers that are held in memory, as GeoPackages that carry their style."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree.ElementTree import tostring

import numpy as np
import pyogrio
import shapely
from markupsafe import Markup
from pyogrio.errors import DataLayerError, DataSourceError

from pipeline.documents import parse_xml
from pipeline.errors import InputError, OutputError
from pipeline.files import check_target, flush, scratch_folder, whole_file
from pipeline.maps.style import categorised, qml, scheme_categories
from pipeline.maps.vectorise import PolygonBatch, PolygonRules, polygons

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme
    from pipeline.maps.pixels import PixelRows

LAYER = "landcover"
OBJECTS_LAYER = "objects"
# When a layer was changed last, which GeoPackages must say. Source: GDAL, GPKG driver, OGR_CURRENT_DATE.
UNDATED, _DATE_OPTION = "1980-01-01T00:00:00.000Z", "OGR_CURRENT_DATE"
# What writing a GeoPackage fails with, OSError aside.
FAILURES = (DataSourceError, DataLayerError, sqlite3.Error)
_GEOMETRY = "geom"  # the column that GDAL's GeoPackage driver makes
_STYLES_TABLE = """CREATE TABLE IF NOT EXISTS layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
 f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
 styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30),
 ui TEXT(30), update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"""


def write_polygons(
    path: Path, codes: PixelRows,
    *, grid: Grid, scheme: ClassScheme, rules: PolygonRules | None = None, confidence: PixelRows | None = None,
    also: Sequence[Literal["parquet", "fgb"]] = (), overwrite: bool = False,
) -> int:  # fmt: skip
    """Write ``<scene>_lc.gpkg`` with class, code, area_ha and confidence (mean, %); returns the number of polygons.

    ``codes`` are uint8 [row, col], 0 nodata; ``confidence`` uint8 [row, col] in percent, 255 nodata. ``also`` are
    further formats, written beside it; they hold all polygons in memory.

    Raises:
        OutputError: a file exists, the folder cannot be written, or the disk is full; no partial file is left.
        ConfigError: a minimum mapping unit is negative or of an unknown class.
    """
    targets = [path, *(path.with_suffix(f".{kind}") for kind in also)]
    for target in targets:
        check_target(target, overwrite=overwrite)
    try:
        with scratch_folder(path) as scratch, undated():
            drafts = [scratch / target.name for target in targets]
            batches = polygons(
                codes, grid=grid, scheme=scheme, rules=rules or PolygonRules(), confidence=confidence, scratch=scratch
            )
            count = 0
            for batch in batches:
                _append(drafts[0], batch, crs=_crs_text(grid), scheme=scheme)
                count += len(batch.code)
            if count == 0:
                empty = PolygonBatch(np.empty(0, object), np.empty(0, np.uint8), np.empty(0), None)
                _append(drafts[0], empty, crs=_crs_text(grid), scheme=scheme)
            add_layer_style(drafts[0], layer=LAYER, style=qml(categorised("code", scheme_categories(scheme))))
            for draft in drafts[1:]:
                _translate(drafts[0], draft)
            for draft, target in zip(drafts, targets, strict=True):
                flush(draft)
                draft.replace(target)
    except (OSError, *FAILURES) as err:
        raise OutputError("cannot write the polygons", path=path, got=err) from err
    return count


def add_layer_style(path: Path, *, layer: str, style: str) -> None:
    """Put a QML style into a GeoPackage, where QGIS looks for the default style of ``layer``.

    Source: QGIS, QgsOgrProviderMetadata::saveStyle (table layer_styles, registered as attributes).
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(_STYLES_TABLE)
        connection.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName,"
            " styleQML, styleSLD, useAsDefault, description, owner, update_time)"
            " VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '', ?)",
            (layer, _GEOMETRY, layer, style, "classes of the land-cover map", UNDATED),
        )
        connection.execute(
            "INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier, description, last_change, srs_id)"
            " VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?, 0)",
            (UNDATED,),
        )


def layer_style(path: Path, layer: str) -> Markup | None:
    """The renderer of a layer's default style in a GeoPackage, for a project; None where it has none.

    Raises:
        InputError: no GeoPackage.
    """
    query = "SELECT styleQML FROM layer_styles WHERE f_table_name = ? AND useAsDefault"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(query, (layer,)).fetchone()
        renderer = parse_xml(row[0]).find("renderer-v2") if row else None
    except (sqlite3.Error, InputError) as err:
        raise InputError("cannot read the style of a layer", path=path, got=err) from err
    return None if renderer is None else Markup(tostring(renderer, encoding="unicode"))  # noqa: S704 - parsed XML


@contextmanager
def undated() -> Iterator[None]:
    """Within, GDAL writes UNDATED into GeoPackages: of two that hold the same, every byte is the same."""
    before = pyogrio.get_gdal_config_option(_DATE_OPTION)
    pyogrio.set_gdal_config_options({_DATE_OPTION: UNDATED})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({_DATE_OPTION: before})


def _append(path: Path, batch: PolygonBatch, *, crs: str, scheme: ClassScheme) -> None:
    names = np.array([scheme.by_code(int(code)).name for code in range(256) if code in scheme.codes], dtype=object)
    order = np.searchsorted(np.sort(scheme.codes), batch.code)
    confidence = np.full(len(batch.code), np.nan) if batch.confidence is None else batch.confidence
    pyogrio.raw.write(
        path, geometry=shapely.to_wkb(batch.geometry),
        field_data=[names[order], batch.code.astype(np.int32), np.round(batch.area_ha, 4), np.round(confidence, 1)],
        fields=["class", "code", "area_ha", "confidence"], layer=LAYER, driver="GPKG", geometry_type="Polygon", crs=crs,
        append=path.exists(),
    )  # fmt: skip


def _translate(source: Path, target: Path) -> None:
    frame = pyogrio.read_dataframe(source, layer=LAYER)
    if target.suffix == ".parquet":
        frame.to_parquet(target, index=False)
    else:
        pyogrio.write_dataframe(frame, target, driver="FlatGeobuf", layer=LAYER, geometry_type="Polygon")


def _crs_text(grid: Grid) -> str:
    code = grid.crs.to_epsg()
    return f"EPSG:{code}" if code else str(grid.crs.to_wkt())


@dataclass(frozen=True, eq=False)
class PackageLayer:
    """A layer of a GeoPackage."""

    name: str  # Of the layer
    frame: GeoDataFrame  # Its features; an empty layer is one of polygons
    style: str = ""  # QML; "" for none


def check_geopackage_name(path: Path, *, also: Sequence[str] = ()) -> None:
    """Refuse a name that says another format: programs would not open the file.

    Raises:
        OutputError: it ends neither in .gpkg nor in one of ``also``.
    """
    endings = (".gpkg", *also)
    if path.suffix.lower() not in endings:
        raise OutputError("written as another format", path=path, expected=f"a name in {' or '.join(endings)}")


def write_geopackage(path: Path, layers: Sequence[PackageLayer], *, what: str, overwrite: bool = True) -> Path:
    """Write layers into one GeoPackage, whole or not at all.

    Raises:
        OutputError: see :func:`pipeline.files.whole_file`; or a name that does not end in .gpkg.
    """
    check_geopackage_name(path)
    with whole_file(path, what=what, failures=FAILURES, overwrite=overwrite) as part, undated():
        for layer in layers:
            kind = "Polygon" if layer.frame.empty else None
            layer.frame.to_file(part, layer=layer.name, driver="GPKG", engine="pyogrio", geometry_type=kind)
            if layer.style:
                add_layer_style(part, layer=layer.name, style=layer.style)
    return path
