"""Vector files -> features as they are in the file: layer, field and CRS found, nothing repaired yet."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import LabelError, LabelWarning
from pipeline.labels.geometries import BROKEN, readable_parquet
from pipeline.labels.settings import split_source

if TYPE_CHECKING:
    import pandas as pd
    from geopandas import GeoDataFrame

PARQUET_SUFFIXES = frozenset({".parquet", ".geoparquet", ".pq"})
KML_SUFFIXES = frozenset({".kml", ".kmz"})
FOLDER = "Folder"
_ONLY = "_class_of_all"
# What text that is not UTF-8 most often is: Windows in western Europe, whose every byte but five is a letter.
GUESS = "cp1252"
FORMATS = "a GeoPackage, Shapefile, GeoJSON, GeoParquet or FlatGeobuf"
CSV_SUFFIXES = frozenset({".csv", ".tsv"})
# Columns of a CSV that hold degrees on WGS 84; others do not say their CRS.
_LONGITUDE, _LATITUDE = ("lon", "longitude", "lng", "long"), ("lat", "latitude")
# What stands in tables where nothing is known, without case.
_GAPS = frozenset({"?", "??", "???", "-", "--", "na", "n/a", "n.a.", "#n/a", "nan", "null", "<null>"})
# Longitudes of polygons across 180 degrees go on beyond it.
MOST_DEGREES = 720.0
# A field with more values than this is an identifier, not a class.
MOST_CLASS_VALUES = 254
_SHOWN = 3


def read_features(
    path: Path | str, *, field: str, layer: str | None = None, encoding: str | None = None, only: str = ""
) -> GeoDataFrame:
    """All features of a layer: columns ``value`` (text or None) and ``geometry``; CRS set.

    Values are text: integers without decimals ("1" for 1 and for 1.0, as a column with gaps is stored as float),
    surrounding spaces removed, None where the field is null or blank. Of a KML the layers are folders: all of them are
    read where none is named, and the field ``Folder`` is the name of the folder. With ``only`` every value is that.

    Raises:
        LabelError: no such file, not a vector file, layer or field missing, no features, no geometry, no CRS.
    """
    import geopandas as gpd
    import pandas as pd

    path, layer = _file_and_layer(path, layer)
    folders = _folders(path) if layer is None else []
    if only:
        layer = resolve_layer(path, field=None, layer=layer)
        frame = read_layer(path, field=None, layer=layer, encoding=encoding).assign(**{_ONLY: only})
        field = _ONLY
    elif folders:
        parts = [
            read_layer(path, field=None, layer=name, encoding=encoding).assign(**{FOLDER: name}) for name in folders
        ]
        frame = gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=parts[0].crs)
        _require_field(path, field=field, names=[name for name in frame.columns if name != frame.geometry.name])
    else:
        layer = resolve_layer(path, field=field, layer=layer)
        _require_field(path, field=field, names=fields_of(path, layer=layer))
        frame = read_layer(path, field=field, layer=layer, encoding=encoding)
    _require_crs(frame, path=path)
    if frame.empty:
        raise LabelError("layer has no features", path=path, got=f"layer {layer!r}" if layer else "0 features")
    column = frame[field]
    if column.dtype.kind == "f" and (odd := column[column % 1 > 0].unique()).size:
        shown = ", ".join(f"{value:g}" for value in odd[:_SHOWN])
        fix = "if it measures something, set labels.kind to value (landcover init --kind value)"
        warnings.warn(
            f"{path}: field {field!r} has numbers with decimals, {shown}, taken as classes; {fix}",
            LabelWarning,
            stacklevel=2,
        )
    return gpd.GeoDataFrame({"value": as_text(column)}, geometry=list(frame.geometry), crs=frame.crs)


def features_with(
    path: Path | str, *, fields: Sequence[str], layer: str | None = None, encoding: str | None = None
) -> GeoDataFrame:
    """All features of a layer with several attributes as they are in the file; CRS set.

    Raises:
        LabelError: as :func:`read_features`.
    """
    path, layer = _file_and_layer(path, layer)
    layer = resolve_layer(path, field=fields[0] if fields else None, layer=layer)
    for field in fields:
        _require_field(path, field=field, names=fields_of(path, layer=layer))
    frame = read_layer(path, field=None, layer=layer, encoding=encoding)
    _require_crs(frame, path=path)
    return frame


def _file_and_layer(path: Path | str, layer: str | None) -> tuple[Path, str | None]:
    """A source as QGIS writes it, file.gpkg|layername=fields, as its file and layer."""
    file, named = split_source(str(path))
    return Path(file), layer or named


def _require_crs(frame: GeoDataFrame, *, path: Path) -> None:
    if frame.crs is None:
        fix = "add the .prj file, or set it in QGIS with 'Assign projection'"
        expected = "a CRS, so that they can be laid over the scene"
        raise LabelError("labels have no CRS", path=path, expected=expected, fix=fix)
    if frame.crs.is_geographic and np.nanmax(np.abs(frame.total_bounds), initial=0.0) > MOST_DEGREES:
        fix = "assign the CRS that they are in with 'Assign projection' of QGIS"
        got = f"coordinates up to {np.nanmax(np.abs(frame.total_bounds)):,.0f}"
        raise LabelError("labels in degrees that are none", path=path, got=f"{frame.crs.name}, {got}", fix=fix)


def _folders(path: Path) -> list[str]:
    """Layers of a KML that has several, which are its folders; none for other files."""
    if path.suffix.lower() not in KML_SUFFIXES:
        return []
    import pyogrio

    with _readable(path):
        names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    return names if len(names) > 1 else []


def fields_of(path: Path | str, *, layer: str | None = None) -> tuple[str, ...]:
    """Names of the attribute fields of a layer."""
    path = Path(path)
    if path.suffix.lower() in CSV_SUFFIXES:
        return tuple(str(name) for name in _read_csv(path, rows=0).columns)
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return tuple(name for name in _parquet_columns(path) if name not in {"geometry", "geom", "bbox"})
    import pyogrio

    with _readable(path):
        return tuple(pyogrio.read_info(path, layer=layer)["fields"])


def resolve_layer(path: Path, *, field: str | None, layer: str | None) -> str | None:
    """The layer to read: the one asked for, the only one, or the only one with geometry that has ``field``.

    None for GeoParquet and CSV, which have no layers.
    """
    if path.suffix.lower() in CSV_SUFFIXES:
        return None
    if path.suffix.lower() in PARQUET_SUFFIXES:
        _parquet_columns(path)
        return None
    import pyogrio

    with _readable(path):
        rows = [(str(name), kind) for name, kind in pyogrio.list_layers(path)]
    names = [name for name, kind in rows if kind is not None]
    if layer is not None:
        if layer not in names:
            raise LabelError(f"no layer {layer!r}", path=path, got=", ".join(names), expected="one of these layers")
        return layer
    if not names:
        raise LabelError("file has no layer with geometry", path=path, expected=FORMATS)
    if len(names) == 1:
        return names[0]
    fitting = [name for name in names if field is not None and field in fields_of(path, layer=name)]
    if len(fitting) != 1:
        having = f"{len(fitting)} of them with field {field!r}"
        got = f"{', '.join(names)}; {having}"
        raise LabelError(f"file has {len(names)} layers", path=path, got=got, fix="name one (--layer)")
    return fitting[0]


def class_values(
    path: Path | str, *, field: str, layer: str | None = None, encoding: str | None = None
) -> dict[str, int]:
    """How many features have each value of ``field``, most frequent first, ties by name; without gaps (:func:`is_gap`).

    Raises:
        LabelError: as :func:`read_features`; a missing field is answered with the fields that there are.
    """
    values = read_features(path, field=field, layer=layer, encoding=encoding)["value"].dropna()
    counts = values[~values.map(is_gap)].value_counts()
    return {str(name): int(counts[name]) for name in sorted(counts.index, key=lambda name: (-counts[name], name))}


def is_gap(value: str) -> bool:
    """Whether text says that nothing is known, such as "?", "n/a" or "NA", rather than a class."""
    return value.casefold() in _GAPS


def as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """Class values as text or None; see :func:`read_features`."""
    import pandas as pd

    def one(value: object) -> str | None:
        if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            return None
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            return str(int(value))
        return str(value).strip() or None

    return pd.Series([one(value) for value in column], index=column.index, dtype=object)


def _require_field(path: Path, *, field: str, names: Sequence[str]) -> None:
    if field not in names:
        expected = f"one of {', '.join(names)}" if names else "a field with the class"
        raise LabelError(f"labels have no field {field!r}", path=path, expected=expected, fix="say which with --field")


def read_layer(path: Path, *, field: str | None, layer: str | None, encoding: str | None = None) -> GeoDataFrame:
    """A layer as it is in the file, with one of its fields, or with all where none is named.

    Raises:
        LabelError: no vector file that GDAL reads, or a layer without geometry.
    """
    import geopandas as gpd

    if path.suffix.lower() in CSV_SUFFIXES:
        return _points_of(_read_csv(path, encoding=encoding), path)
    if path.suffix.lower() in PARQUET_SUFFIXES:
        try:
            return gpd.read_parquet(readable_parquet(path))
        except (ValueError, OSError) as err:
            expected = "Parquet with 'geo' metadata"
            raise LabelError("not a GeoParquet file", path=path, got=err, expected=expected) from err
    frame = _decoded(path, field=field, layer=layer, encoding=encoding)
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LabelError("layer has no geometry", path=path, got=f"layer {layer!r}", expected="polygons")
    return frame


def _read_csv(path: Path, *, rows: int | None = None, encoding: str | None = None) -> pd.DataFrame:
    import pandas as pd

    _require_file(path)
    encoding = encoding or "utf-8-sig"
    try:
        with path.open(encoding=encoding) as file:
            heads = file.readline()
        sep = max(",;\t|", key=heads.count)
        return pd.read_csv(path, sep=sep, nrows=rows, encoding=encoding, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as err:
        raise LabelError(
            "not a CSV table", path=path, got=err, expected="a line of names, and lines of values"
        ) from err


def _points_of(table: pd.DataFrame, path: Path) -> GeoDataFrame:
    """The rows of a table as points, by its columns of longitude and latitude.

    Raises:
        LabelError: no such columns, or no degrees in them.
    """
    import geopandas as gpd
    import pandas as pd

    names = {str(name).casefold(): name for name in table.columns}
    own = [next((names[word] for word in words if word in names), None) for words in (_LONGITUDE, _LATITUDE)]
    if None in own:
        expected = "columns lon and lat, degrees on WGS 84"
        fix = "name them so, or load it in QGIS ('Add Delimited Text Layer', with its CRS) and save it as GeoPackage"
        got = ", ".join(map(str, table.columns))
        raise LabelError("a CSV table does not say where its rows lie", path=path, got=got, expected=expected, fix=fix)
    lon, lat = (pd.to_numeric(table[name], errors="coerce") for name in own)
    blank = table[own].isna().any(axis=1)
    bad = ~blank & ~(lon.between(-MOST_DEGREES, MOST_DEGREES) & lat.between(-90, 90))
    if bad.any():
        got = ", ".join(str(table[name][bad].iloc[0]) for name in own)
        what = f"{int(bad.sum())} rows of {' and '.join(map(str, own))} are no degrees"
        raise LabelError(what, path=path, got=got, expected="longitude and latitude on WGS 84")
    points = gpd.GeoSeries(gpd.points_from_xy(lon, lat), index=table.index).where(~blank)
    return gpd.GeoDataFrame(table, geometry=points, crs=4326)


def _decoded(path: Path, *, field: str | None, layer: str | None, encoding: str | None) -> Any:
    """A layer with its text decoded; warns where the encoding is guessed."""
    import geopandas as gpd

    def read(encoding: str | None) -> Any:
        with _readable(path):
            # columns=[field] keeps wide OpenStreetMap tables out of memory; curves come as line segments from pyogrio.
            columns = None if field is None else [field]
            frame = gpd.read_file(
                path, layer=layer, columns=columns, engine="pyogrio", encoding=encoding, on_invalid="ignore"
            )
        return _with_broken(frame, path, layer=layer) if isinstance(frame, gpd.GeoDataFrame) else frame

    if encoding is not None:
        try:
            return read(encoding)
        except UnicodeDecodeError as err:
            raise LabelError("text is not in labels.encoding", path=path, got=encoding, fix="name another") from err
    try:
        frame = read(None)
    except UnicodeDecodeError:
        _warn_encoding(path, f"text is not UTF-8: read as {GUESS}")
        return read(GUESS)
    beside = path.parent.glob(f"{glob.escape(path.stem)}.*") if path.suffix.lower() == ".shp" else None
    if beside is not None and not any(file.suffix.lower() == ".cpg" for file in beside):
        texts = [value for name in frame.columns for value in frame[name] if isinstance(value, str)]
        strange = [text for text in texts if not text.isascii()]
        if strange and all(_is_utf8(text) for text in strange):
            _warn_encoding(path, "no .cpg file says the encoding: read as UTF-8")
            return read("utf-8")
        if strange:
            _warn_encoding(path, f"no .cpg file says the encoding: read as ISO-8859-1, such as {strange[0]!r}")
    return frame


def _with_broken(frame: GeoDataFrame, path: Path, *, layer: str | None) -> GeoDataFrame:
    """The frame with BROKEN where a feature has a geometry that is none: a ring of two points, bytes of something else.

    Read as None they would be taken for features without geometry.
    """
    lost = frame.geometry.isna().to_numpy(copy=True)
    if lost.any():
        import pyogrio

        with _readable(path):
            stored = pyogrio.raw.read(path, layer=layer, columns=[])[2]
        lost &= np.array([blob is not None for blob in stored], dtype=np.bool_)
        frame.loc[lost, frame.geometry.name] = BROKEN
    return frame


def _is_utf8(text: str) -> bool:
    """Whether text decoded as ISO-8859-1 was UTF-8: WÃ¤lder was Wälder."""
    try:
        text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return False
    return True


def _warn_encoding(path: Path, text: str) -> None:
    warnings.warn(f"{path}: {text}; set labels.encoding where names look wrong", LabelWarning, stacklevel=5)


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow as pa
    from pyarrow import parquet

    _require_file(path)
    try:
        return list(parquet.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as err:
        raise LabelError("not a Parquet file", path=path, got=err, expected=FORMATS) from err


def _require_file(path: Path) -> None:
    if not path.exists() and not str(path).startswith("/vsi"):
        raise LabelError("no such file", path=path, expected=FORMATS)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise LabelError("not a regular file", path=path, got="a pipe or device", expected=FORMATS)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn pyogrio's errors on ``path`` into LabelError and keep its warnings (winding order, M values) quiet."""
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

    _require_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (DataSourceError, DataLayerError, FeatureError, GeometryError) as err:
            raise LabelError("not a vector file that GDAL can read", path=path, got=err, expected=FORMATS) from err


def iter_values(frame: GeoDataFrame) -> Iterator[str]:
    """The distinct class values of features from :func:`read_features`, sorted; numbers by size, before text."""
    values = {str(value) for value in frame["value"].dropna()}
    return iter(sorted(values, key=lambda v: (0, int(v), v) if v.lstrip("-").isdigit() else (1, 0, v)))
