"""STAC 1.1 items of maps and models, and a collection per run, written by pystac, for catalogues and tile servers.

Sources: STAC specification 1.1.0; extensions projection 2.0.0, raster 2.0.0, classification 1.1.0 (with the names and
titles of 2.0.0), file 2.1.0, processing 1.2.0, render 2.0.0 (read by TiTiler); of models MLM 1.5.2, written by name, as
pystac's own ends at 1.4.0.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import pystac
import shapely
from pystac.extensions.classification import Classification
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.render import Render, RenderExtension
from pystac.layout import CustomLayoutStrategy
from pystac.stac_io import DefaultStacIO

from pipeline import __version__
from pipeline.bands import centre_um
from pipeline.errors import OutputError
from pipeline.files import hash_file, prepare_folder, write_text
from pipeline.maps.style import LAYERS, PERCENT_NODATA
from pipeline.maps.vrt import relative

if TYPE_CHECKING:
    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme
    from pipeline.maps.geotiff import SceneFiles
    from pipeline.maps.pixels import ClassCounts

SCHEMA = "https://stac-extensions.github.io/{}/schema.json"
# A map without a known date shows the Earth after the first Landsat (launched on 1972-07-23) and before it was made.
FIRST_LANDSAT = datetime(1972, 7, 23, tzinfo=UTC)
_EDGE_POINTS = 16
_HALF_TURN = 180.0
_MEDIA = "application/octet-stream; application=safetensors"
_ARTIFACT = "safetensors.torch.save_file"
WORLD = (-180.0, -90.0, 180.0, 90.0)
Acquired = datetime | tuple[datetime, datetime] | None


@dataclass(frozen=True)
class MapItem:
    """What a catalogue says about one map."""

    id: str  # Name of the item, unique in the collection
    grid: Grid  # Grid of the map
    scheme: ClassScheme  # Its classes
    files: SceneFiles  # Its files
    until: datetime  # End of the time span of a map whose scene was taken nobody knows when
    acquired: Acquired = None  # When the scene was taken; (first, last) for a composite; None where unknown
    counts: ClassCounts | None = None  # Pixels and ha per class
    sources: tuple[str, ...] = ()  # Scenes the map was made from: paths or addresses
    model: str | None = None  # Id of the item of the model that made it, in the same collection
    software: Mapping[str, str] = field(default_factory=dict)  # Names and versions of what made it


def map_item(given: MapItem, *, folder: Path) -> pystac.Item:
    """The STAC item of a map that will lie in ``folder``; hrefs are relative to it."""
    geometry, bbox = footprint(given.grid)
    item = pystac.Item(
        given.id,
        geometry=geometry,
        bbox=bbox,
        **time_span(given.acquired, given.until),
        stac_extensions=[SCHEMA.format(name) for name in ("raster/v2.0.0", "classification/v1.1.0",
                                                          "processing/v1.2.0")],
        properties={
            "title": f"Land cover of {given.id}",
            "gsd": round(sum(given.grid.pixel_size_m) / 2, 3),
            "processing:level": "L4",
            "processing:lineage": "classified by a convolutional network fine-tuned on training polygons",
            "processing:software": {"landcover": __version__, **given.software},
        },
    )  # fmt: skip
    _add_projection(item, given.grid)
    for source in given.sources:
        href = source if "://" in source or source.startswith("/vsi") else relative(source, folder)
        item.add_link(pystac.Link("derived_from", href))
    if given.model is not None:
        item.add_link(pystac.Link("derived_from", f"./{given.model}.json", pystac.MediaType.GEOJSON))
    for key, path, asset in _assets(given, folder):
        add_asset(item, key, path, asset)
    RenderExtension.ext(item, add_if_missing=True).apply(dict(_renders(given)))
    return item


def add_asset(item: pystac.Item, key: str, path: Path, asset: pystac.Asset) -> None:
    """Add an asset with the size and SHA-256 of its file (a multihash: 12 = SHA-256, 20 = 32 bytes).

    Raises:
        OutputError: the file cannot be read.
    """
    item.add_asset(key, asset)
    try:
        facts = {"size": path.stat().st_size, "checksum": f"1220{hash_file(path)}"}
    except OSError as err:
        raise OutputError("cannot read the file for the catalogue", path=path, got=err) from err
    FileExtension.ext(asset, add_if_missing=True).apply(**facts)  # type: ignore[arg-type]


def write_collection(folder: Path, items: Sequence[pystac.Item], *, identity: str, description: str) -> Path:
    """Write ``<item>.json`` per item and ``collection.json`` into ``folder``; returns the collection's path.

    Raises:
        OutputError: two items have one name, or the folder cannot be written.
    """
    names = [item.id for item in items]
    if len(set(names)) != len(names) or not names:
        raise OutputError("STAC items of a run need different names", path=folder, got=", ".join(names) or "none")
    prepare_folder(folder)
    target = folder / "collection.json"
    extent = pystac.Extent.from_items(items)
    collection = pystac.Collection(identity, description, extent, title=identity, license="other")
    collection.set_self_href(str(target))
    collection.add_items(items, strategy=_BESIDE)
    collection.save(pystac.CatalogType.SELF_CONTAINED, stac_io=_WholeFiles())
    return target


_BESIDE = CustomLayoutStrategy(item_func=lambda item, folder: f"{folder}/{item.id}.json")


class _WholeFiles(DefaultStacIO):
    """pystac's writer of JSON, with files that appear when they are whole."""

    def write_text_to_href(self, href: str, txt: str) -> None:
        write_text(Path(href), txt + "\n", what="the STAC file")

    def json_dumps(self, json_dict: dict[str, Any], *_: object, **__: object) -> str:
        return json.dumps(json_dict, indent=2, ensure_ascii=False)


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """(GeoJSON geometry, bbox) of a grid in WGS84; cut in two where it crosses the antimeridian."""
    left, bottom, right, top = grid.bounds
    box = shapely.box(left, bottom, right, top)
    edges = shapely.segmentize(box, max(right - left, top - bottom) / _EDGE_POINTS)
    to_degrees = pyproj.Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True)
    outline: Any = shapely.transform(edges, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
    west, south, east, north = outline.bounds
    if east - west > _HALF_TURN:
        turned = shapely.transform(outline, lambda xy: xy + (xy[:, :1] < 0) * (2 * _HALF_TURN, 0.0))
        beyond = shapely.intersection(turned, shapely.box(_HALF_TURN, -90, 2 * _HALF_TURN, 90))
        parts = [
            shapely.intersection(turned, shapely.box(0, -90, _HALF_TURN, 90)),
            shapely.transform(beyond, lambda xy: xy - (2 * _HALF_TURN, 0.0)),
        ]
        west, east = turned.bounds[0], turned.bounds[2] - 2 * _HALF_TURN
        outline = shapely.MultiPolygon(parts)
    geometry: dict[str, Any] = json.loads(shapely.to_geojson(shapely.set_precision(outline, 1e-7)))
    return geometry, [round(value, 7) for value in (west, south, east, north)]


def class_objects(scheme: ClassScheme, counts: ClassCounts | None = None) -> list[dict[str, Any]]:
    """The classes for ``classification:classes``: value, machine-readable name, title, description, colour, count."""
    names = [machine_name(c.name) for c in scheme.classes]
    total = max(1, sum(counts.pixels)) if counts else 1
    objects = []
    for number, (name, land) in enumerate(zip(names, scheme.classes, strict=True)):
        unique = name if name and names.count(name) == 1 else f"{name}_{land.code}".strip("_")
        entry = Classification.create(land.code, land.name, unique, land.name, land.color[1:].upper())
        if counts:
            entry.count = counts.pixels[number]
            entry.percentage = round(100 * counts.pixels[number] / total, 4)
        objects.append(entry.to_dict())
    return objects


def machine_name(text: str) -> str:
    """A name of ASCII letters, digits, ``-`` and ``_``, as the classification extension asks for.

    >>> machine_name("Bare / sparse vegetation"), machine_name("Wälder")
    ('Bare_sparse_vegetation', 'Walder')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^0-9A-Za-z_-]+", "_", plain).strip("_")


def time_span(acquired: Acquired, until: datetime) -> dict[str, Any]:
    """Arguments of an item: ``datetime``, or None with start and end for a composite or an unknown time."""
    if isinstance(acquired, datetime):
        return {"datetime": acquired}
    first, last = acquired or (FIRST_LANDSAT, until)
    return {"datetime": None, "start_datetime": first, "end_datetime": last}


def _add_projection(item: pystac.Item, grid: Grid) -> None:
    code = grid.crs.to_epsg()
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    epsg = f"EPSG:{code}" if code else None
    projection.apply(code=epsg, shape=list(grid.shape), transform=list(grid.transform)[:6], bbox=list(grid.bounds))
    if not code:
        projection.wkt2 = grid.crs.to_wkt(version="WKT2_2019")
        item.properties["proj:code"] = None


def _assets(given: MapItem, folder: Path) -> Iterator[tuple[str, Path, pystac.Asset]]:
    classes = class_objects(given.scheme, given.counts)
    common = {"raster:sampling": "area", "raster:spatial_resolution": round(given.grid.pixel_size_m[0], 3)}
    percent = {"data_type": "uint8", "nodata": PERCENT_NODATA, "unit": "%", **common}
    codes = {"name": "land_cover", "data_type": "uint8", "nodata": 0, **common}
    probable = [{"name": f"p_{c['name']}", "description": f"Probability of {c['title']}", **percent} for c in classes]
    cog, files = pystac.MediaType.COG, given.files
    table: list[tuple[str, Path | None, str, str, list[str], dict[str, Any]]] = [
        ("classes", files.class_map, "Land cover", cog, ["data", "classification"],
         {"bands": [codes], "classification:classes": classes}),
        *((layer.key, files.layers.get(layer.key), layer.title, cog, ["data", layer.key],
           {"bands": [{"name": layer.key, "description": layer.description, **percent}]}) for layer in LAYERS),
        ("probabilities", files.probabilities, "Class probabilities", cog, ["data"], {"bands": probable}),
        ("class_sets", files.sets, "Classes that a pixel may have", cog, ["data", "classification"], {}),
        ("polygons", files.polygons, "Polygons", pystac.MediaType.GEOPACKAGE, ["data"], {}),
        ("polygons_parquet", files.polygons_parquet, "Polygons (GeoParquet)", pystac.MediaType.PARQUET, ["data"], {}),
        ("polygons_fgb", files.polygons_fgb, "Polygons (FlatGeobuf)", pystac.MediaType.FLATGEOBUF, ["data"], {}),
        ("thumbnail", files.quicklook, "Quicklook", pystac.MediaType.PNG, ["thumbnail", "overview"], {}),
    ]  # fmt: skip
    for key, path, title, media, roles, more in table:
        if path is not None:
            href = relative(path, folder)
            yield key, path, pystac.Asset(href, title=title, media_type=media, roles=roles, extra_fields=more)


def _renders(given: MapItem) -> Iterator[tuple[str, Render]]:
    colormap = {str(c.code): [*c.rgb, 255] for c in given.scheme.classes}
    yield "classes", Render.create(["classes"], "Land cover", nodata=0, colormap=colormap, resampling="nearest")
    shown = [(layer.key, layer.key, layer.title, layer.maximum, layer.ramp, 1)
             for layer in LAYERS if layer.key in given.files.layers]  # fmt: skip
    if given.files.probabilities is not None:
        shown += [(f"p_{c['name']}", "probabilities", f"Probability of {c['title']} (%)", 100, "viridis", band)
                  for band, c in enumerate(class_objects(given.scheme), 1)]  # fmt: skip
    for key, asset, title, top, ramp, band in shown:
        render = Render.create(
            [asset], title, [[0, top]], nodata=PERCENT_NODATA, colormap_name=ramp, resampling="average"
        )
        render.properties["bidx"] = [band]  # TiTiler's band of a file with several
        yield key, render


@dataclass(frozen=True)
class ModelItem:
    """What a catalogue says about one model file."""

    id: str  # Name of the item
    path: Path  # The model file
    architecture: str  # Name as in the literature ("U-Net, ResNet-18 encoder")
    scheme: ClassScheme  # Classes, in the order of the output's channels
    bands: tuple[str, ...]  # Input bands by common name, in order
    mean: tuple[float, ...]  # Mean per band in the unit of the input
    std: tuple[float, ...]  # Standard deviation per band
    units: tuple[str, ...]  # Unit per band, such as "reflectance" (0..1) or "DN" as stored
    until: datetime  # End of the time span where it is not known when they were
    acquired: Acquired = None  # When its training scenes were taken; None where unknown
    # West, south, east, north of its training area in degrees; the world where unknown
    bbox: tuple[float, float, float, float] = WORLD
    framework_version: str | None = None  # PyTorch's version
    parameters: int | None = None  # Number of weights
    pretrained_source: str | None = None  # Data its encoder was pretrained on; None for none
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)  # Settings of its training


def model_item(given: ModelItem, *, folder: Path) -> pystac.Item:
    """The STAC item of a model that will lie in ``folder``; hrefs are relative to it."""
    centres = {name: centre_um(name) for name in given.bands}
    bands = [{"name": name} | ({"eo:center_wavelength": um} if um else {}) for name, um in centres.items()]
    outline = shapely.geometry.mapping(shapely.box(*given.bbox))
    name = re.sub(r"^[^a-zA-Z]+", "", machine_name(given.id)) or "model"
    optional = {
        "mlm:framework_version": _semantic(given.framework_version),
        "mlm:total_parameters": given.parameters,
        "mlm:hyperparameters": dict(given.hyperparameters) or None,
    }
    item = pystac.Item(
        given.id,
        geometry={**outline, "coordinates": [[list(xy) for xy in ring] for ring in outline["coordinates"]]},
        bbox=list(given.bbox),
        **time_span(given.acquired, given.until),
        stac_extensions=[SCHEMA.format(extension) for extension in ("mlm/v1.5.2", "classification/v1.1.0")],
        properties={
            "title": f"Land-cover model {given.id}",
            "mlm:name": f"{name} landcover",
            "mlm:architecture": given.architecture,
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "PyTorch",
            "mlm:pretrained": given.pretrained_source is not None,
            "mlm:pretrained_source": given.pretrained_source,
            "mlm:input": [_input(given)],
            "mlm:output": [
                {
                    "name": "logits",
                    "tasks": ["semantic-segmentation"],
                    "result": _structure(len(given.scheme), "class"),
                    "classification:classes": class_objects(given.scheme),
                }
            ],
            "bands": bands,
            **{key: value for key, value in optional.items() if value is not None},
        },
    )
    # STAC 1.1 allows bands in the properties, where MLM looks for them, only if an asset has bands as well.
    asset = pystac.Asset(
        relative(given.path, folder),
        title=given.architecture,
        media_type=_MEDIA,
        roles=["mlm:model", "mlm:weights"],
        extra_fields={"mlm:artifact_type": _ARTIFACT, "bands": bands},
    )
    add_asset(item, "model", given.path, asset)
    return item


def _input(given: ModelItem) -> dict[str, Any]:
    scaling = [
        {"type": "z-score", "mean": float(mean), "stddev": float(std)}
        for mean, std in zip(given.mean, given.std, strict=True)
    ]
    return {
        "name": "values of the bands",
        "description": "in " + " and ".join(dict.fromkeys(given.units)),
        "bands": list(given.bands),
        "input": _structure(len(given.bands), "bands"),
        "value_scaling": scaling,
        "resize_type": None,
    }


def _structure(channels: int, axis: str) -> dict[str, Any]:
    """A tensor of any number of pixels (-1)."""
    dims = ["batch", axis, "height", "width"]
    return {"shape": [-1, channels, -1, -1], "dim_order": dims, "data_type": "float32"}


def _semantic(version: str | None) -> str | None:
    """``2.4.0`` of ``2.4.0+cpu``; None where that is no semantic version."""
    found = re.match(r"\d+\.\d+\.\d+", version or "")
    return found.group() if found else None
