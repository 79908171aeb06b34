"""A QGIS project that opens everything of a run with one click: grouped, styled, with relative paths.

A ``.qgz`` is a zip that holds one ``.qgs`` (XML). Layers carry their own style, since a project does not look at the
.qml beside a file; every path is relative to the project, so the folder can be moved.
Source: QGIS, QgsProject::writeProjectFile and QgsMapLayer::writeLayerXml, as QGIS 3.22 reads them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyogrio
import pyproj
import rasterio
from markupsafe import Markup
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.warp import transform_bounds

from pipeline.errors import InputError
from pipeline.files import check_target, write_bytes
from pipeline.legend import VIRIDIS, ClassScheme
from pipeline.maps import style
from pipeline.maps.geotiff import SceneFiles, classes_title
from pipeline.maps.legends import read_scheme, sidecar_paths
from pipeline.maps.look import scale_bar_m
from pipeline.maps.vectors import LAYER, OBJECTS_LAYER, layer_style
from pipeline.maps.vrt import SceneView, relative

if TYPE_CHECKING:
    from pipeline.grid import Grid


# The map's frame on the page of the print layout, in mm.
_FRAME_MM = (190.0, 166.0)


@dataclass(frozen=True)
class SceneLayers:
    """What a project shows of one scene."""

    name: str  # What the scene is called in the layer panel
    grid: Grid  # Grid of the map
    files: SceneFiles  # The map and what lies beside it
    # The scene itself, as written by :func:`pipeline.maps.vrt.write_scene_view`; None leaves it out
    view: SceneView | None = None
    # The map with classes merged into groups, see :func:`pipeline.maps.vrt.write_groups`, and the groups
    groups: tuple[Path, ClassScheme] | None = None


@dataclass(frozen=True)
class VectorLayer:
    """A vector file shown as outlines by the values of an attribute."""

    path: Path  # The file
    attribute: str  # The attribute with the values
    categories: tuple[style.Category, ...]  # Value, label and colour
    layer: str | None = None  # Layer of the file, None for its only one


@dataclass(frozen=True)
class StyledLayer:
    """A layer of a GeoPackage that carries its style."""

    name: str  # What it is called in the layer panel
    path: Path  # The GeoPackage
    layer: str  # Its layer


@dataclass(frozen=True)
class RasterLayer:
    """A raster and how it is shown."""

    name: str  # What it is called in the layer panel
    path: Path  # The file
    grid: Grid  # Its grid
    pipe: Markup  # Of its style


def label_layer(path: Path, *, attribute: str, scheme: ClassScheme, layer: str) -> VectorLayer:
    """Training labels by the class names in their field."""
    return VectorLayer(path, attribute, style.scheme_categories(scheme, by_name=True), layer)


def split_layer(path: Path, *, layer: str) -> VectorLayer:
    """Chips or blocks by the split they belong to."""
    return VectorLayer(path, "split", tuple(style.Category(k, k, v) for k, v in style.PART_COLORS.items()), layer)


def write_project(
    path: Path, scenes: Sequence[SceneLayers],
    *, scheme: ClassScheme, labels: VectorLayer | None = None, chips: VectorLayer | None = None,
    findings: Sequence[StyledLayer] = (), mosaic: tuple[Path, Grid] | None = None, steps: Sequence[RasterLayer] = (),
    title: str = "Land cover", sources: str = "", overwrite: bool = False,
) -> None:  # fmt: skip
    """Write a ``.qgz`` over the files of a run.

    Labels are drawn on top as outlines; findings and chips are off at first. Several scenes get a group each. Of
    ``steps``, which are of one place, the first is shown.

    Raises:
        OutputError: the project exists or cannot be written.
        InputError: a vector file cannot be opened.
    """
    check_target(path, overwrite=overwrite)
    grids = [*(scene.grid for scene in scenes), *(step.grid for step in steps)] + ([mosaic[1]] if mosaic else [])
    crs = grids[-1].crs if mosaic else grids[0].crs
    bounds = [transform_bounds(grid.crs, crs, *grid.bounds) for grid in grids]
    box = [pick(values) for pick, values in zip((min, min, max, max), zip(*bounds, strict=True), strict=True)]
    draft = _Draft(path.parent, scheme)
    tree = [*draft.training(labels, chips), *draft.findings(findings), *draft.maps(scenes, mosaic)]
    tree += [draft.raster(item.name, item.path, item.grid, item.pipe, shown=item is steps[0], classes=True)
             for item in steps]  # fmt: skip
    wide_m = (mosaic[1] if mosaic else grids[0]).pixel_size_m[0] / grids[-1].pixel_size[0] * (box[2] - box[0])
    segment, unit = scale_bar_m(wide_m) / 2, "meters"
    if segment >= 1000:  # noqa: PLR2004 - metres in a kilometre
        segment, unit = segment / 1000, "km"
    text = style.from_template(
        "project.qgs.jinja", version=style.QGIS_VERSION, title=title, wkt=crs.to_wkt(),
        authority=_authority(crs.to_wkt()), units="degrees" if crs.is_geographic else "meters", box=_corners(box),
        tree=tree, layers=draft.layers, sources=" ".join(filter(None, (sources, _authority(crs.to_wkt())))),
        classes=len(scheme), layout_extent=_corners(_fitted(box, _FRAME_MM)),
        bar={"segment": f"{segment:g}", "unit": unit, "label": "m" if unit == "meters" else unit},
        shown=[layer for layer in draft.layers if layer["classes"] and layer["shown"]] or draft.layers[-1:],
    )  # fmt: skip
    write_bytes(path, _zipped(f"{path.stem}.qgs", text))


def _corners(box: Sequence[float]) -> dict[str, str]:
    return {key: f"{value:.12g}" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)}


def _fitted(box: Sequence[float], frame: tuple[float, float]) -> list[float]:
    """A box made wider or taller, about its centre, until it has the shape of a frame."""
    left, bottom, right, top = box
    scale = max((right - left) / frame[0], (top - bottom) / frame[1])
    centre = (left + right) / 2, (bottom + top) / 2
    half = scale * frame[0] / 2, scale * frame[1] / 2
    return [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]


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

    def findings(self, layers: Sequence[StyledLayer]) -> Iterable[Node]:
        found = [self.styled(item) for item in layers]
        return [_group("Where to look", found, shown=False)] if found else []

    def maps(self, scenes: Sequence[SceneLayers], mosaic: tuple[Path, Grid] | None) -> Iterable[Node]:
        if mosaic:
            yield self.raster("Land cover (mosaic)", *mosaic, style.paletted_pipe(self.scheme), classes=True)
        for scene in scenes:
            layers = list(self.scene(scene, shown=mosaic is None))
            yield from layers if len(scenes) == 1 else [_group(scene.name, layers)]

    def scene(self, scene: SceneLayers, *, shown: bool) -> Iterable[Node]:
        grid, files = scene.grid, scene.files
        if files.objects:
            yield self.styled(StyledLayer("Objects", files.objects, OBJECTS_LAYER))
        if files.polygons:
            source = VectorLayer(files.polygons, "code", style.scheme_categories(self.scheme), LAYER)
            yield self.vector("Polygons", source, shown=False, filled=True)
        pipe, name = style.paletted_pipe(self.scheme), classes_title(files.class_map)
        if files.values:
            yield self.values(files.values, grid, shown=shown)
            shown = False
        yield self.raster(name, files.class_map, grid, pipe, shown=shown, classes=True)
        if scene.groups:
            merged, groups = scene.groups
            yield self.raster("Land cover, groups of classes", merged, grid, style.paletted_pipe(groups), shown=False)
        for layer in style.LAYERS:
            if path := files.layers.get(layer.key):
                pipe = style.ramp_pipe(1, layer.colors, maximum=layer.maximum)
                yield self.raster(layer.title, path, grid, pipe, shown=False)
        if path := files.sets:
            pipe = style.paletted_pipe(read_scheme(path))
            yield self.raster("Classes that a pixel may have", path, grid, pipe, shown=False)
        if path := files.probabilities:
            bands = enumerate(self.scheme.names, 1)
            shares = [self.raster(name, path, grid, style.ramp_pipe(band, VIRIDIS)) for band, name in bands]
            yield _group("Probabilities (%)", shares, shown=False)
        if view := scene.view:
            pictures = [
                self.raster(item.name, view.path, view.grid, style.rgb_pipe(item.bands, item.limits), shown=visible)
                for item, visible in ((view.first, True), (view.false_colour, False))
                if item
            ]
            yield _group("Scene", pictures)

    def raster(
        self, name: str, path: Path, grid: Grid, style: Markup, *, shown: bool = True, classes: bool = False
    ) -> Node:
        return self._add(
            name, relative(path, self.folder), shown=shown, classes=classes,
            type="raster", provider="gdal", geometry="", wkt=grid.crs.to_wkt(), style=style,
        )  # fmt: skip

    def values(self, path: Path, grid: Grid, *, shown: bool) -> Node:
        """A continuous map by its own style, called as its first band."""
        with rasterio.open(path) as source:
            name = source.descriptions[0] or path.stem
        text = sidecar_paths(path)[1].read_text(encoding="utf-8")
        pipe = Markup(text[text.index("<pipe>") : text.index("</qgis>")])  # noqa: S704 - written by this package
        return self.raster(name, path, grid, pipe, shown=shown, classes=shown)

    def vector(self, name: str, source: VectorLayer, *, shown: bool = True, filled: bool = False) -> Node:
        point, wkt = _kind_of(source.path, source.layer)
        shape: style.Shape = "marker" if point else "fill" if filled else "outline"
        renderer = style.categorised(source.attribute, source.categories, shape=shape)
        return self._vector(name, source.path, source.layer, renderer, point=point, wkt=wkt, shown=shown)

    def styled(self, source: StyledLayer) -> Node:
        point, wkt = _kind_of(source.path, source.layer)
        style = layer_style(source.path, source.layer) or Markup()
        return self._vector(source.name, source.path, source.layer, style, point=point, wkt=wkt, shown=True)

    def _vector(
        self, name: str, path: Path, layer: str | None, style: Markup, *, point: bool, wkt: str, shown: bool
    ) -> Node:
        target = relative(path, self.folder) + (f"|layername={layer}" if layer else "")
        return self._add(
            name, target, shown=shown, classes=False, type="vector", provider="ogr",
            geometry="Point" if point else "Polygon", wkt=wkt, style=style,
        )  # fmt: skip

    def _add(self, name: str, source: str, *, shown: bool, **more: object) -> Node:
        # QGIS replaces layer ids of ten characters or fewer by its own, and the tree entry then dangles.
        identity = f"landcover_layer_{len(self.layers) + 1:04d}"
        node = {"id": identity, "name": name, "source": source, "shown": shown, **more}
        self.layers.append({**node, "authority": _authority(str(more["wkt"]))})
        return node


def _kind_of(path: Path, layer: str | None) -> tuple[bool, str]:
    """Whether a vector layer has points, and the WKT of its CRS, "" where it has none.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        info = pyogrio.read_info(path, layer=layer)
    except (DataSourceError, DataLayerError, OSError) as err:
        raise InputError("cannot open the vector file", path=path, got=err) from err
    wkt = pyproj.CRS.from_user_input(info["crs"]).to_wkt() if info["crs"] else ""
    return "Point" in (info["geometry_type"] or ""), wkt


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
