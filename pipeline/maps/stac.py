"""STAC 1.1 items of maps and a collection per run, as files that a catalogue or a tile server can read.

Sources: STAC specification 1.1.0; extensions projection 2.0.0, raster 2.0.0, classification 1.1.0 (with the names and
titles of 2.0.0), file 2.1.0, processing 1.2.0, render 2.0.0 (read by TiTiler).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely

from pipeline import __version__
from pipeline.errors import OutputError
from pipeline.maps.sidecars import cannot_write, write_text
from pipeline.maps.vrt import relative

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme
    from pipeline.maps.counts import ClassCounts

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
GEOPACKAGE = "application/geopackage+sqlite3"
GEOPARQUET = "application/vnd.apache.parquet"
FLATGEOBUF = "application/vnd.flatgeobuf"
STAC_VERSION = "1.1.0"
# Key, what it holds, title, upper end of the ramp, and matplotlib's name of the ramp, which tile servers know.
_LAYERS = (
    ("confidence", "Probability of the mapped class", "Confidence (%)", 100, "viridis"),
    ("applicability", "Dissimilarity from the training data, 100 = its threshold", "Unlike the training data (%)", 200,
     "rdbu_r"),
    ("entropy", "Entropy of the class probabilities, 100 = log K", "Entropy (%)", 100, "magma"),
    ("margin", "First minus second class probability", "Margin (%)", 100, "viridis"),
)  # fmt: skip
# A map without a known date shows the Earth after the first Landsat (launched on 1972-07-23) and before it was made.
FIRST_LANDSAT = datetime(1972, 7, 23, tzinfo=UTC)
_EDGE_POINTS = 16
_HALF_TURN = 180.0


@dataclass(frozen=True)
class MapRecord:
    """What a catalogue says about one map.

    Attributes:
        id: Name of the item, unique in the collection.
        grid: Grid of the map.
        scheme: Its classes.
        class_map: The class map.
        created: When the map was made.
        acquired: When the scene was taken; (first, last) for a composite; None where unknown.
        counts: Pixels and ha per class.
        confidence: Confidence in percent.
        probabilities: One band per class in percent.
        applicability: Dissimilarity from the training data in percent of its threshold.
        entropy: In percent of its largest value.
        margin: First minus second probability in percent.
        polygons: GeoPackage.
        polygons_parquet: The same as GeoParquet.
        polygons_fgb: The same as FlatGeobuf.
        quicklook: PNG.
        sources: Scenes the map was made from: paths or addresses.
        model: Id of the item of the model that made it, in the same collection.
        software: Names and versions of what made it.
        lineage: One sentence on how.
    """

    id: str
    grid: Grid
    scheme: ClassScheme
    class_map: Path
    created: datetime
    acquired: datetime | tuple[datetime, datetime] | None = None
    counts: ClassCounts | None = None
    confidence: Path | None = None
    probabilities: Path | None = None
    applicability: Path | None = None
    entropy: Path | None = None
    margin: Path | None = None
    polygons: Path | None = None
    polygons_parquet: Path | None = None
    polygons_fgb: Path | None = None
    quicklook: Path | None = None
    sources: tuple[str, ...] = ()
    model: str | None = None
    software: Mapping[str, str] = field(default_factory=dict)
    lineage: str = "classified by a convolutional network fine-tuned on training polygons"


def map_item(record: MapRecord, *, folder: Path) -> dict[str, Any]:
    """The STAC item of a map that will lie in ``folder``; hrefs are relative to it."""
    geometry, bbox = footprint(record.grid)
    properties: dict[str, Any] = {
        **time_span(record.acquired, record.created),
        "created": stamp(record.created),
        "title": f"Land cover of {record.id}",
        "gsd": round(sum(record.grid.pixel_size_m) / 2, 3),
        **_projection(record.grid),
        "processing:level": "L4",
        "processing:lineage": record.lineage,
        "processing:software": {"landcover": __version__, **record.software},
        "renders": _renders(record),
    }
    links = [{"rel": "derived_from", "href": _href(source, folder)} for source in record.sources]
    if record.model is not None:
        links.append({"rel": "derived_from", "href": f"./{record.model}.json", "type": "application/geo+json"})
    extensions = ["projection/v2.0.0", "raster/v2.0.0", "classification/v1.1.0", "file/v2.1.0"]
    return item(
        record.id,
        geometry=geometry,
        bbox=bbox,
        properties=properties,
        links=links,
        assets=_assets(record, folder),
        extensions=[*extensions, "processing/v1.2.0", "render/v2.0.0"],
    )


def item(
    identity: str,
    *,
    geometry: Mapping[str, Any],
    bbox: Sequence[float],
    properties: Mapping[str, Any],
    links: Sequence[Mapping[str, Any]],
    assets: Mapping[str, Any],
    extensions: Sequence[str],
) -> dict[str, Any]:
    """A STAC item as a dictionary; ``extensions`` as ``name/vX.Y.Z``."""
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in extensions],
        "id": identity,
        "geometry": geometry,
        "bbox": list(bbox),
        "properties": properties,
        "links": list(links),
        "assets": assets,
    }


def write_collection(
    folder: Path, items: Sequence[dict[str, Any]], *, identity: str, description: str, license_id: str = "other"
) -> Path:
    """Write ``<item>.json`` per item and ``collection.json`` into ``folder``; returns the collection's path.

    Args:
        folder: Where the items' hrefs start from.
        items: As made by :func:`map_item` and :func:`pipeline.maps.stac_model.model_item`.
        identity: Name of the run.
        description: What the run made.
        license_id: SPDX identifier of the maps' licence, or "other".

    Raises:
        OutputError: two items have one name, or the folder cannot be written.
    """
    names = [str(entry["id"]) for entry in items]
    if len(set(names)) != len(names) or not names:
        raise OutputError("STAC items of a run need different names", path=folder, got=", ".join(names) or "none")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise cannot_write(folder, err) from err
    for entry in items:
        up = [
            {"rel": rel, "href": "./collection.json", "type": "application/json"}
            for rel in ("root", "parent", "collection")
        ]
        own = {**entry, "collection": identity, "links": [*up, *entry["links"]]}
        write_text(folder / f"{entry['id']}.json", to_text(own))
    boxes = [entry["bbox"] for entry in items]
    union = [pick(box[k] for box in boxes) for k, pick in enumerate((min, min, max, max))]
    times = [_interval(entry["properties"]) for entry in items]
    collection = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": identity,
        "title": identity,
        "description": description,
        "license": license_id,
        "extent": {
            "spatial": {"bbox": [union]},
            "temporal": {"interval": [[min(t[0] for t in times), max(t[1] for t in times)]]},
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            *({"rel": "item", "href": f"./{name}.json", "type": "application/geo+json"} for name in names),
        ],
    }
    target = folder / "collection.json"
    write_text(target, to_text(collection))
    return target


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """(GeoJSON geometry, bbox) of a grid in WGS84; cut in two where it crosses the antimeridian."""
    left, bottom, right, top = grid.bounds
    box = shapely.box(left, bottom, right, top)
    edges = shapely.segmentize(box, max(right - left, top - bottom) / _EDGE_POINTS)
    to_degrees = pyproj.Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True)
    outline: Any = shapely.transform(edges, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
    west, south, east, north = outline.bounds
    if east - west > _HALF_TURN:
        whole = shapely.transform(outline, lambda xy: xy + (xy[:, :1] < 0) * (2 * _HALF_TURN, 0.0))
        parts: list[Any] = [
            shapely.intersection(whole, shapely.box(0, -90, _HALF_TURN, 90)),
            shapely.transform(
                shapely.intersection(whole, shapely.box(_HALF_TURN, -90, 2 * _HALF_TURN, 90)),
                lambda xy: xy - (2 * _HALF_TURN, 0.0),
            ),
        ]
        west, east = whole.bounds[0], whole.bounds[2] - 2 * _HALF_TURN
        outline = shapely.MultiPolygon(parts)
    geometry: dict[str, Any] = json.loads(shapely.to_geojson(shapely.set_precision(outline, 1e-7)))
    return geometry, [round(value, 7) for value in (west, south, east, north)]


def class_objects(scheme: ClassScheme, counts: ClassCounts | None = None) -> list[dict[str, Any]]:
    """The classes for ``classification:classes``: value, machine-readable name, title, description, colour, count."""
    names = [machine_name(c.name) for c in scheme.classes]
    unique = [
        n if names.count(n) == 1 and n else f"{n}_{c.code}".strip("_")
        for n, c in zip(names, scheme.classes, strict=True)
    ]
    total = max(1, sum(counts.pixels)) if counts else 1
    objects: list[dict[str, Any]] = []
    for number, (name, land) in enumerate(zip(unique, scheme.classes, strict=True)):
        entry: dict[str, Any] = {
            "value": land.code,
            "name": name,
            "title": land.name,
            "description": land.name,
            "color_hint": land.color[1:].upper(),
        }
        if counts:
            entry |= {"count": counts.pixels[number], "percentage": round(100 * counts.pixels[number] / total, 4)}
        objects.append(entry)
    return objects


def machine_name(text: str) -> str:
    """A name of ASCII letters, digits, ``-`` and ``_``, as the classification extension asks for.

    >>> machine_name("Bare / sparse vegetation"), machine_name("Wälder")
    ('Bare_sparse_vegetation', 'Walder')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^0-9A-Za-z_-]+", "_", plain).strip("_")


def file_facts(path: Path) -> dict[str, Any]:
    """Size and checksum of a file: SHA-256 as a multihash (12 = SHA-256, 20 = 32 bytes, in hexadecimal)."""
    try:
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        return {"file:size": path.stat().st_size, "file:checksum": f"1220{digest}"}
    except OSError as err:
        raise OutputError("cannot read the file for the catalogue", path=path, got=err) from err


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def time_span(acquired: datetime | tuple[datetime, datetime] | None, created: datetime) -> dict[str, str | None]:
    """``datetime``, or null with start and end for a composite or an unknown time."""
    if isinstance(acquired, datetime):
        return {"datetime": stamp(acquired)}
    first, last = acquired or (FIRST_LANDSAT, created)
    return {"datetime": None, "start_datetime": stamp(first), "end_datetime": stamp(last)}


def to_text(content: Mapping[str, Any]) -> str:
    """JSON that a person can read."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _interval(properties: Mapping[str, Any]) -> tuple[str, str]:
    moment = properties.get("datetime")
    return (moment, moment) if moment else (properties["start_datetime"], properties["end_datetime"])


def _projection(grid: Grid) -> dict[str, Any]:
    code = grid.crs.to_epsg()
    crs = (
        {"proj:code": f"EPSG:{code}"}
        if code
        else {"proj:code": None, "proj:wkt2": grid.crs.to_wkt(version="WKT2_2019")}
    )
    shape = {"proj:shape": list(grid.shape), "proj:transform": list(grid.transform)[:6], "proj:bbox": list(grid.bounds)}
    return {**crs, **shape}


def _assets(record: MapRecord, folder: Path) -> dict[str, Any]:
    classes = class_objects(record.scheme, record.counts)
    common = {"raster:sampling": "area", "raster:spatial_resolution": round(record.grid.pixel_size_m[0], 3)}
    percent = {"data_type": "uint8", "nodata": 255, "unit": "%", **common}
    codes = {"name": "land_cover", "data_type": "uint8", "nodata": 0, **common}
    probable = [
        {"name": f"p_{entry['name']}", "description": f"Probability of {entry['title']}", **percent}
        for entry in classes
    ]
    layers = {key: [{"name": key, "description": words, **percent}] for key, words, *_ in _LAYERS}
    given: list[tuple[str, Path | None, str, str, list[str], dict[str, Any]]] = [
        ("classes", record.class_map, "Land cover", COG, ["data", "classification"],
         {"bands": [codes], "classification:classes": classes}),
        *((key, path, title, COG, ["data", key], {"bands": layers[key]})
          for (key, _, title, *_), path in zip(_LAYERS, _layer_paths(record), strict=True)),
        ("probabilities", record.probabilities, "Class probabilities", COG, ["data"], {"bands": probable}),
        ("polygons", record.polygons, "Polygons", GEOPACKAGE, ["data"], {}),
        ("polygons_parquet", record.polygons_parquet, "Polygons (GeoParquet)", GEOPARQUET, ["data"], {}),
        ("polygons_fgb", record.polygons_fgb, "Polygons (FlatGeobuf)", FLATGEOBUF, ["data"], {}),
        ("thumbnail", record.quicklook, "Quicklook", "image/png", ["thumbnail", "overview"], {}),
    ]  # fmt: skip
    return {
        key: {"href": relative(path, folder), "title": title, "type": kind, "roles": roles, **more, **file_facts(path)}
        for key, path, title, kind, roles, more in given
        if path is not None
    }


def _renders(record: MapRecord) -> dict[str, Any]:
    colormap = {str(c.code): [*c.rgb, 255] for c in record.scheme.classes}
    renders: dict[str, Any] = {
        "classes": {
            "title": "Land cover",
            "assets": ["classes"],
            "colormap": colormap,
            "resampling": "nearest",
            "nodata": 0,
        }
    }
    shown = [(key, title, top, ramp, 1) for key, _, title, top, ramp in _LAYERS]
    paths = list(_layer_paths(record))
    if record.probabilities is not None:
        names = enumerate(class_objects(record.scheme), 1)
        shown += [(f"p_{c['name']}", f"Probability of {c['title']} (%)", 100, "viridis", band) for band, c in names]
        paths += [record.probabilities] * len(record.scheme)
    for (key, title, top, ramp, band), path in zip(shown, paths, strict=True):
        if path is not None:
            renders[key] = {
                "title": title, "assets": ["probabilities" if key.startswith("p_") else key], "bidx": [band],
                "rescale": [[0, top]], "colormap_name": ramp, "resampling": "average", "nodata": 255,
            }  # fmt: skip
    return renders


def _layer_paths(record: MapRecord) -> tuple[Path | None, ...]:
    """Where the layers of _LAYERS are."""
    return record.confidence, record.applicability, record.entropy, record.margin


def _href(source: str, folder: Path) -> str:
    return source if "://" in source or source.startswith("/vsi") else relative(source, folder)
