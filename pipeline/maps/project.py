"""A QGIS project that opens everything of a run with one click: grouped, styled, with relative paths.

A ``.qgz`` is a zip that holds one ``.qgs`` (XML). Layers carry their own style, since a project does not look at the
.qml beside a file; every path is relative to the project, so the folder can be moved.
Source: QGIS, QgsProject::writeProjectFile and QgsMapLayer::writeLayerXml, as QGIS 3.22 reads them.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    from_template,
    paletted_pipe,
    ramp_pipe,
    rgb_pipe,
    scheme_categories,
)
from pipeline.maps.vectors import LAYER
from pipeline.maps.vrt import SceneView, relative

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from markupsafe import Markup

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
    grids = [scene.grid for scene in scenes] + ([mosaic[1]] if mosaic else [])
    crs = grids[-1].crs if mosaic else grids[0].crs
    bounds = [transform_bounds(grid.crs, crs, *grid.bounds) for grid in grids]
    box = [pick(values) for pick, values in zip((min, min, max, max), zip(*bounds, strict=True), strict=True)]
    draft = _Draft(path.parent, scheme)
    tree = [*draft.training(labels, chips), *draft.maps(scenes, mosaic)]
    text = from_template(
        "project.qgs.jinja",
        version=QGIS_VERSION,
        title=title,
        wkt=crs.to_wkt(),
        authority=_authority(crs.to_wkt()),
        units="degrees" if crs.is_geographic else "meters",
        box={key: f"{value:.12g}" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)},
        tree=tree,
        layers=draft.layers,
    )
    write_bytes(path, _zipped(f"{path.stem}.qgs", text))


Node = dict[str, Any]


@dataclass
class _Draft:
    """The layers of a project being put together; methods give nodes of its tree."""

    folder: Path
    scheme: ClassScheme
    layers: list[Node] = field(default_factory=list)

    def training(self, labels: VectorLayer | None, chips: VectorLayer | None) -> Iterable[Node]:
        found = []
        if labels:
            found.append(self.vector("Training labels", labels))
        if chips:
            found.append(self.vector("Chips by split", chips, shown=False))
        return [_group("Training data", found)] if found else []

    def maps(self, scenes: Sequence[SceneLayers], mosaic: tuple[Path, Grid] | None) -> Iterable[Node]:
        if mosaic:
            yield self.raster("Land cover (mosaic)", *mosaic, paletted_pipe(self.scheme))
        for scene in scenes:
            layers = list(self.scene(scene, shown=mosaic is None))
            yield from layers if len(scenes) == 1 else [_group(scene.name, layers)]

    def scene(self, scene: SceneLayers, *, shown: bool) -> Iterable[Node]:
        grid, files = scene.grid, scene.files
        if files.polygons:
            source = VectorLayer(files.polygons, "code", scheme_categories(self.scheme), LAYER)
            yield self.vector("Polygons", source, shown=False, filled=True)
        yield self.raster("Land cover", files.class_map, grid, paletted_pipe(self.scheme), shown=shown)
        for layer in LAYERS:
            if path := files.layers.get(layer.key):
                pipe = ramp_pipe(1, layer.colors, maximum=layer.maximum)
                yield self.raster(layer.title, path, grid, pipe, shown=False)
        if path := files.probabilities:
            bands = enumerate(self.scheme.names, 1)
            shares = [self.raster(name, path, grid, ramp_pipe(band, VIRIDIS)) for band, name in bands]
            yield _group("Probabilities (%)", shares, shown=False)
        if view := scene.view:
            pictures = [
                self.raster(item.name, view.path, view.grid, rgb_pipe(item.bands, item.limits), shown=visible)
                for item, visible in ((view.first, True), (view.false_colour, False))
                if item
            ]
            yield _group("Scene", pictures)

    def raster(self, name: str, path: Path, grid: Grid, style: Markup, *, shown: bool = True) -> Node:
        return self._add(
            name, relative(path, self.folder), shown=shown,
            type="raster", provider="gdal", geometry="", wkt=grid.crs.to_wkt(), style=style,
        )  # fmt: skip

    def vector(self, name: str, source: VectorLayer, *, shown: bool = True, filled: bool = False) -> Node:
        try:
            info = pyogrio.read_info(source.path, layer=source.layer)
        except (DataSourceError, OSError) as err:
            raise InputError("cannot open the vector file", path=source.path, got=err) from err
        target = relative(source.path, self.folder) + (f"|layername={source.layer}" if source.layer else "")
        point = "Point" in (info["geometry_type"] or "")
        style = categorised(
            source.attribute, source.categories, shape="marker" if point else "fill" if filled else "outline"
        )
        return self._add(
            name, target, shown=shown, type="vector", provider="ogr", geometry="Point" if point else "Polygon",
            wkt=pyproj.CRS.from_user_input(info["crs"]).to_wkt() if info["crs"] else "", style=style,
        )  # fmt: skip

    def _add(self, name: str, source: str, *, shown: bool, **more: object) -> Node:
        # QGIS replaces layer ids of ten characters or fewer by its own, and the tree entry then dangles.
        identity = f"landcover_layer_{len(self.layers) + 1:04d}"
        node = {"id": identity, "name": name, "source": source, "shown": shown, **more}
        self.layers.append({**node, "authority": _authority(str(more["wkt"]))})
        return node


def _group(name: str, children: list[Node], *, shown: bool = True) -> Node:
    return {"name": name, "children": children, "shown": shown}


def _authority(wkt: str) -> str:
    """``EPSG:32632`` of a CRS, "" where it has no code; QGIS takes a CRS by its WKT, not by a code alone."""
    return ":".join(pyproj.CRS.from_wkt(wkt).to_authority() or ()) if wkt else ""


def _zipped(name: str, text: str) -> bytes:
    """A zip with one file, dated 1980 (the first date a zip can hold), so that equal projects are equal bytes."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, text)
    return memory.getvalue()
