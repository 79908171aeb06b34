"""A QGIS project that opens everything of a run with one click: grouped, styled, with relative paths.

A ``.qgz`` is a zip that holds one ``.qgs`` (XML). Layers carry their own style, since a project does not look at the
.qml beside a file; every path is relative to the project, so the folder can be moved.
Source: QGIS, QgsProject::writeProjectFile and QgsMapLayer::writeLayerXml, as QGIS 3.22 reads them.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from xml.etree.ElementTree import Element, SubElement

import pyogrio
import pyproj
from pyogrio.errors import DataSourceError
from rasterio.warp import transform_bounds

from pipeline.errors import InputError
from pipeline.files import check_target, write_bytes
from pipeline.maps.style import (
    LAYERS,
    PART_COLORS,
    QGIS_VERSION,
    VIRIDIS,
    Category,
    categorised,
    paletted_pipe,
    ramp_pipe,
    rgb_pipe,
    scheme_categories,
    xml_text,
)
from pipeline.maps.vectors import LAYER
from pipeline.maps.vrt import SceneView, relative

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme
    from pipeline.maps.geotiff import SceneFiles


@dataclass(frozen=True)
class SceneLayers:
    """What a project shows of one scene.

    Attributes:
        name: What the scene is called in the layer panel.
        grid: Grid of the map.
        files: The map and what lies beside it.
        view: The scene itself, as written by :func:`pipeline.maps.vrt.write_scene_view`; None leaves it out.
    """

    name: str
    grid: Grid
    files: SceneFiles
    view: SceneView | None = None


@dataclass(frozen=True)
class VectorLayer:
    """A vector file shown as outlines by the values of an attribute.

    Attributes:
        path: The file.
        attribute: The attribute with the values.
        categories: Value, label and colour.
        layer: Layer of the file, None for its only one.
    """

    path: Path
    attribute: str
    categories: tuple[Category, ...]
    layer: str | None = None


def label_layer(path: Path, *, attribute: str, scheme: ClassScheme, layer: str | None = None) -> VectorLayer:
    """Training labels by the class names in their field."""
    return VectorLayer(path, attribute, scheme_categories(scheme, by_name=True), layer)


def split_layer(path: Path, *, attribute: str = "split", layer: str | None = None) -> VectorLayer:
    """Chips or blocks by the split they belong to."""
    return VectorLayer(path, attribute, tuple(Category(k, k, v) for k, v in PART_COLORS.items()), layer)


def write_project(
    path: Path,
    scenes: Sequence[SceneLayers],
    *,
    scheme: ClassScheme,
    labels: VectorLayer | None = None,
    chips: VectorLayer | None = None,
    mosaic: tuple[Path, Grid] | None = None,
    title: str = "Land cover",
    overwrite: bool = False,
) -> None:
    """Write a ``.qgz`` over the files of a run.

    Args:
        path: The project, ending in ``.qgz``.
        scenes: Files per scene; several scenes get a group each.
        scheme: Classes of every map.
        labels: Training labels, drawn on top as outlines.
        chips: Chips by split.
        mosaic: VRT over the class maps of all scenes, with its grid.
        title: Title of the project's window.
        overwrite: Replace a file of the same name.

    Raises:
        OutputError: the project exists or cannot be written.
        InputError: a vector file cannot be opened.
    """
    check_target(path, overwrite=overwrite)
    draft = _Draft(folder=path.parent, root=Element("qgis", version=QGIS_VERSION, projectname=title))
    crs = mosaic[1].crs if mosaic else scenes[0].grid.crs
    grids = [scene.grid for scene in scenes] + ([mosaic[1]] if mosaic else [])
    bounds = [transform_bounds(grid.crs, crs, *grid.bounds) for grid in grids]
    box = [pick(values) for pick, values in zip((min, min, max, max), zip(*bounds, strict=True), strict=True)]
    SubElement(draft.root, "title").text = title
    _add_crs(SubElement(draft.root, "projectCrs"), crs.to_wkt())
    tree = SubElement(draft.root, "layer-tree-group")
    _add_canvas(draft.root, box, wkt=crs.to_wkt(), degrees=crs.is_geographic)
    draft.layers = SubElement(draft.root, "projectlayers")
    _add_all(draft, tree, scenes, scheme=scheme, labels=labels, chips=chips, mosaic=mosaic)
    _add_settings(draft.root, box, wkt=crs.to_wkt())
    write_bytes(path, _zipped(f"{path.stem}.qgs", xml_text(draft.root, doctype=True)))


@dataclass
class _Draft:
    """A project being put together."""

    folder: Path
    root: Element
    layers: Element = field(default_factory=lambda: Element("projectlayers"))
    count: int = 0


def _add_all(
    draft: _Draft,
    tree: Element,
    scenes: Sequence[SceneLayers],
    *,
    scheme: ClassScheme,
    labels: VectorLayer | None,
    chips: VectorLayer | None,
    mosaic: tuple[Path, Grid] | None,
) -> None:
    if labels or chips:
        group = _group(tree, "Training data")
        if labels:
            _add_vector(draft, group, "Training labels", labels, shown=True)
        if chips:
            _add_vector(draft, group, "Chips by split", chips, shown=False)
    if mosaic:
        _add_raster(draft, tree, "Land cover (mosaic)", *mosaic, paletted_pipe(scheme), shown=True)
    for scene in scenes:
        parent = tree if len(scenes) == 1 else _group(tree, scene.name)
        _add_scene(draft, parent, scene, scheme=scheme, shown=mosaic is None)


def _add_scene(draft: _Draft, parent: Element, scene: SceneLayers, *, scheme: ClassScheme, shown: bool) -> None:
    grid, files = scene.grid, scene.files
    if files.polygons:
        source = VectorLayer(files.polygons, "code", scheme_categories(scheme), LAYER)
        _add_vector(draft, parent, "Polygons", source, shown=False, filled=True)
    _add_raster(draft, parent, "Land cover", files.class_map, grid, paletted_pipe(scheme), shown=shown)
    for layer in LAYERS:
        if path := files.layers.get(layer.key):
            pipe = ramp_pipe(1, layer.colors, maximum=layer.maximum)
            _add_raster(draft, parent, layer.title, path, grid, pipe, shown=False)
    if files.probabilities:
        group = _group(parent, "Probabilities (%)", shown=False)
        for band, name in enumerate(scheme.names, 1):
            _add_raster(draft, group, name, files.probabilities, grid, ramp_pipe(band, VIRIDIS), shown=True)
    if scene.view:
        group = _group(parent, "Scene")
        for view, visible in ((scene.view.first, True), (scene.view.false_colour, False)):
            if view:
                pipe = rgb_pipe(view.bands, view.limits)
                _add_raster(draft, group, view.name, scene.view.path, scene.view.grid, pipe, shown=visible)


def _group(parent: Element, name: str, *, shown: bool = True) -> Element:
    state = "Qt::Checked" if shown else "Qt::Unchecked"
    return SubElement(parent, "layer-tree-group", name=name, checked=state, expanded="1" if shown else "0")


def _add_raster(
    draft: _Draft, parent: Element, name: str, path: Path, grid: Grid, pipe: Element, *, shown: bool
) -> None:
    layer = _add_layer(
        draft,
        parent,
        name,
        relative(path, draft.folder),
        kind={"type": "raster"},
        provider="gdal",
        wkt=grid.crs.to_wkt(),
        shown=shown,
    )
    layer.append(pipe)


def _add_vector(
    draft: _Draft, parent: Element, name: str, source: VectorLayer, *, shown: bool, filled: bool = False
) -> None:
    try:
        info = pyogrio.read_info(source.path, layer=source.layer)
    except (DataSourceError, OSError) as err:
        raise InputError("cannot open the vector file", path=source.path, got=err) from err
    target = relative(source.path, draft.folder) + (f"|layername={source.layer}" if source.layer else "")
    shape = "Point" if "Point" in (info["geometry_type"] or "") else "Polygon"
    layer = _add_layer(
        draft,
        parent,
        name,
        target,
        kind={"type": "vector", "geometry": shape},
        provider="ogr",
        wkt=pyproj.CRS.from_user_input(info["crs"]).to_wkt() if info["crs"] else "",
        shown=shown,
    )
    drawn: Literal["fill", "outline", "marker"] = "fill" if filled else "outline"
    layer.append(categorised(source.attribute, source.categories, shape="marker" if shape == "Point" else drawn))


def _add_layer(
    draft: _Draft,
    parent: Element,
    name: str,
    source: str,
    *,
    kind: dict[str, str],
    provider: Literal["gdal", "ogr"],
    wkt: str,
    shown: bool,
) -> Element:
    draft.count += 1
    # QGIS replaces layer ids of ten characters or fewer by its own, and the tree entry then dangles.
    identity = f"landcover_layer_{draft.count:04d}"
    state = "Qt::Checked" if shown else "Qt::Unchecked"
    SubElement(
        parent,
        "layer-tree-layer",
        {"id": identity, "name": name, "providerKey": provider, "source": source, "checked": state, "expanded": "1"},
    )
    layer = SubElement(draft.layers, "maplayer", kind)
    for tag, text in (("id", identity), ("datasource", source), ("layername", name)):
        SubElement(layer, tag).text = text
    if wkt:
        _add_crs(SubElement(layer, "srs"), wkt)
    SubElement(layer, "provider", {"encoding": "UTF-8"} if provider == "ogr" else {}).text = provider
    return layer


def _add_crs(parent: Element, wkt: str) -> None:
    """A CRS by its WKT: an authority code alone does not make a valid one."""
    root = SubElement(parent, "spatialrefsys")
    SubElement(root, "wkt").text = wkt
    authority = pyproj.CRS.from_wkt(wkt).to_authority()
    if authority:
        SubElement(root, "authid").text = ":".join(authority)


def _add_canvas(root: Element, box: Sequence[float], *, wkt: str, degrees: bool) -> None:
    canvas = SubElement(root, "mapcanvas", name="theMapCanvas", annotationsVisible="1")
    SubElement(canvas, "units").text = "degrees" if degrees else "meters"
    extent = SubElement(canvas, "extent")
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
        SubElement(extent, tag).text = f"{value:.12g}"
    _add_crs(SubElement(canvas, "destinationsrs"), wkt)


def _add_settings(root: Element, box: Sequence[float], *, wkt: str) -> None:
    properties = SubElement(root, "properties")
    SubElement(SubElement(properties, "SpatialRefSys"), "ProjectionsEnabled", type="int").text = "1"
    SubElement(SubElement(properties, "Paths"), "Absolute", type="bool").text = "false"
    values = {tag: f"{value:.12g}" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)}
    extent = SubElement(SubElement(root, "ProjectViewSettings"), "DefaultViewExtent", values)
    _add_crs(extent, wkt)


def _zipped(name: str, text: str) -> bytes:
    """A zip with one file, dated 1980 (the first date a zip can hold), so that equal projects are equal bytes."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, text)
    return memory.getvalue()
