"""What analysts have on disk, rebuilt with planted truth: ``python tests/situations.py`` prints how each case is read.

Each case writes the files of a public bug report with coordinates or known reflectance in the pixels and says what came
of it: right; refused or asked about in words that help; wrong; or a traceback. The table is in docs/inputs.md. The
package of any version can be looked at by PYTHONPATH, which is how the column "before" was made.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import yaml
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from pipeline.errors import PipelineError
from pipeline.grid import Grid, Window
from pipeline.scenes import geotiff
from pipeline.scenes.opening import open_scene

SIDE = 64
UTM = "EPSG:32633"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
ROWS, COLS = np.indices((SIDE, SIDE))
# Every pixel holds its own place: row x 100 + column, as no other pixel does.
PLACES = (ROWS * 100 + COLS + 1).astype(np.uint16)


@dataclass(frozen=True)
class Situation:
    """One case: the item of the list that it belongs to, what is on disk, and what builds and judges it."""

    kind: str
    name: str
    judge: Callable[[Path], str]


SITUATIONS: list[Situation] = []


def situation(kind: str, name: str) -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    """Put a case on the list; its function gives "right", or "said: ..." where the user is told what was changed."""

    def add(judge: Callable[[Path], str]) -> Callable[[Path], str]:
        SITUATIONS.append(Situation(kind, name, judge))
        return judge

    return add


# --- what cases need


def opened(path: Path | str, *, mask: Any = None, **known: Any) -> Any:
    """A scene by any version of the package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not known:
            return open_scene(path, mask=mask)
        try:
            from pipeline.scenes.settings import SceneOptions
        except ImportError:
            return open_scene(path, mask=mask, told=geotiff.Interpretation(**known))
        return open_scene(path, mask=mask, options=SceneOptions(**known))


def pixels(source: Any) -> Any:
    """All pixels of a source."""
    with source.open() as reader:
        return reader.read(Window(0, 0, *source.grid.shape))


def write(
    path: Path, values: NDArray[Any], *, south_up: bool = False, names: tuple[str, ...] = (), **profile: Any
) -> Path:
    """A raster [band,row,col] whose first row is the northern one, whichever way it is stored."""
    layers = values if values.ndim == 3 else values[None]
    transform = profile.pop("transform", NORTH_UP)
    if south_up:
        layers = layers[:, ::-1]
        transform = transform @ Affine.translation(0, layers.shape[1]) @ Affine.scale(1, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"driver": "GTiff", "crs": UTM, "transform": transform, "dtype": layers.dtype} | profile
    with rasterio.open(path, "w", count=len(layers), height=layers.shape[1], width=layers.shape[2], **about) as file:
        file.write(layers)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path


def same(got: NDArray[Any], expected: NDArray[Any], what: str = "pixels") -> str:
    if got.shape == expected.shape and np.allclose(got, expected, rtol=1e-4):
        return "right"
    share = float((~np.isclose(got, expected, rtol=1e-4)).mean()) if got.shape == expected.shape else 1.0
    return f"wrong: {what} of {share:.0%} differ"


def command(*arguments: Any) -> tuple[int, str]:
    """Exit status and output of a command."""
    from pipeline.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as err_:
            status = int(err_.code or 0)
    return int(status or 0), " ".join((out.getvalue() + err.getvalue()).split())


def squares(
    crs: str = UTM, transform: Affine = NORTH_UP, names: tuple[str, ...] = ("field", "forest")
) -> gpd.GeoDataFrame:
    """Thirty-two polygons of 4 x 4 pixels, of two or more classes in turn."""
    rows = []
    for number, (row, col) in enumerate((r, c) for r in range(4, SIDE - 8, 8) for c in range(4, SIDE - 8, 8)):
        (x0, y0), (x1, y1) = transform @ (col, row), transform @ (col + 4, row + 4)
        rows.append((names[number % len(names)], shapely.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))))
    return gpd.GeoDataFrame({"class": [name for name, _ in rows]}, geometry=[shape for _, shape in rows], crs=crs)


def two_bands(*, seed: int = 0) -> NDArray[np.float32]:
    """Reflectance of two bands, noise around 0.1 and 0.3."""
    rng = np.random.default_rng(seed)
    return (np.array([0.1, 0.3])[:, None, None] + rng.normal(0, 0.02, (2, SIDE, SIDE))).astype(np.float32)


def labels_in(folder: Path, frame: gpd.GeoDataFrame | None = None, name: str = "labels.gpkg", **options: Any) -> Path:
    (squares() if frame is None else frame).to_file(folder / name, **options)
    return folder / name


def init(
    folder: Path, scene: Path | str, labels: Path | str, *more: Any, output: str = "config.yaml"
) -> tuple[int, str, dict[str, Any]]:
    """Status, output, and the configuration that was written."""
    file = folder / output
    status, text = command("init", "--scene", scene, "--labels", labels, "--field", "class", "-o", file, *more)
    return status, text, yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}


def class_map(path: Path, codes: NDArray[np.uint8], *, south_up: bool = False) -> Path:
    """A class map with a legend of two classes."""
    legend = [{"code": 1, "name": "field", "color": "#f096ff"}, {"code": 2, "name": "forest", "color": "#006400"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "legend.json").write_text(json.dumps(legend), encoding="utf-8")
    return write(path, codes, south_up=south_up, nodata=0)


HALVES = np.where(ROWS < SIDE // 4, 1, 2).astype(np.uint8)

# --- 1. grids that are called equal by their bounds


@situation("1", "a raster that runs south to north, alone")
def _(folder: Path) -> str:
    scene = opened(write(folder / "a.tif", PLACES, south_up=True))
    return same(pixels(scene.on_grid(Grid(CRS.from_user_input(UTM), NORTH_UP, SIDE, SIDE))).values[0], PLACES)


@situation("1", "one band of a folder runs south to north")
def _(folder: Path) -> str:
    write(folder / "s" / "x_B02.tif", PLACES)
    write(folder / "s" / "x_B03.tif", PLACES, south_up=True)
    raster = pixels(opened(folder / "s"))
    return same(raster.values[0], raster.values[1])


@situation("1", "one date of a stack or composite runs south to north")
def _(folder: Path) -> str:
    from pipeline.scenes.joining import composite_scenes
    from pipeline.scenes.stack import stack_scenes

    dates = []
    for number in range(2):
        path = write(folder / f"{number}.tif", PLACES, south_up=number == 1, names=("red",))
        dates.append(opened(path, acquired_utc=datetime(2024, 5, 1 + number, tzinfo=UTC)))
    stack, merged = pixels(stack_scenes(dates)).values, pixels(composite_scenes(dates)).values
    return same(np.concatenate([stack, merged]), np.stack([PLACES] * 3))


@situation("1", "a layer that runs south to north")
def _(folder: Path) -> str:
    from pipeline.scenes.layers import raster_layer, with_layers

    scene = opened(write(folder / "a.tif", PLACES, names=("red",)))
    layer = raster_layer(write(folder / "b.tif", PLACES, south_up=True, names=("other",)))
    return same(pixels(with_layers(scene, [layer])).values[1], PLACES)


@situation("1", "a quality mask that runs south to north")
def _(folder: Path) -> str:
    from pipeline.scenes.quality import scl

    codes = np.where(ROWS < 10, 9, 4).astype(np.uint8)
    scene = opened(write(folder / "a.tif", PLACES, names=("red",)))
    mask = scl(str(write(folder / "SCL.tif", codes, south_up=True)), ("cloud",))
    return same(pixels(replace(scene, quality=(mask,))).valid, codes == 4, "the mask")


@situation("1", "a class raster as labels that runs south to north")
def _(folder: Path) -> str:
    from pipeline.labels.rasters import labels_from_raster
    from pipeline.legend import ClassScheme, LandClass

    scheme = ClassScheme((LandClass(1, "field", "#f096ff"), LandClass(2, "forest", "#006400")))
    grid = Grid(CRS.from_user_input(UTM), NORTH_UP, SIDE, SIDE)
    found = labels_from_raster(write(folder / "a.tif", HALVES, south_up=True), scheme=scheme, grid=grid)
    return same(found.dense(grid.window)[0], HALVES)


@situation("1", "change of a map against its own copy that runs south to north")
def _(folder: Path) -> str:
    earlier, later = class_map(folder / "a.tif", HALVES), class_map(folder / "b.tif", HALVES, south_up=True)
    legend = folder / "legend.json"
    status, text = command("change", earlier, later, "-o", folder / "change.tif", "--legend", legend, "--json")
    if status:
        return f"refused: {text}"
    with rasterio.open(folder / "change.tif") as file:
        codes = file.read(1)
    return same(codes, np.where(HALVES == 1, codes[0, 0], codes[-1, 0]), "the change")


@situation("1", "strata of a sample from a raster that runs south to north")
def _(folder: Path) -> str:
    mapped = class_map(folder / "map.tif", HALVES)
    strata = write(folder / "strata.tif", HALVES, south_up=True)
    more = ("--strata", strata, "-n", 40, "--legend", folder / "legend.json", "-o", folder / "sample.gpkg")
    status, text = command("design", mapped, "--allocation", "equal", *more)
    if status:
        return f"refused: {text}"
    frame = gpd.read_file(folder / "sample.gpkg")
    row = ((NORTH_UP.f - frame.geometry.centroid.y) / 10).astype(int)
    return same(np.sort(np.bincount((row < SIDE // 4).astype(int), minlength=2)), np.array([20, 20]), "the strata")


# --- 2. areas and distances in a CRS that keeps neither


@situation("2", "hectares of a map in EPSG:3857 at 60 N")
def _(folder: Path) -> str:
    grid = Grid(CRS.from_epsg(3857), Affine(10, 0, 1_000_000, 0, -10, 8_399_738), SIDE, SIDE)
    area = getattr(grid, "pixel_areas_ha", None) or grid.pixel_area_ha  # type: ignore[attr-defined]
    return same(np.asarray(area()).ravel()[:1], np.array([0.0025083]), "hectares")


@situation("2", "blocks and buffers in metres in EPSG:3857 at 60 N")
def _(folder: Path) -> str:
    grid = Grid(CRS.from_epsg(3857), Affine(10, 0, 1_000_000, 0, -10, 8_399_738), SIDE, SIDE)
    return "right" if np.allclose(grid.pixel_size_m, 5.01, atol=0.02) else f"wrong: pixels of {grid.pixel_size_m} m"


# --- 3. a sensor guessed from band keys


@situation("3", "a folder of HLS L30: B05 near infrared, B06 and B07 short-wave, B10 thermal")
def _(folder: Path) -> str:
    hls(folder / "s", "L30", ("B02", "B03", "B04", "B05", "B06", "B07", "B10"))
    scene = opened(folder / "s")
    names = [name for name in ("blue", "nir08", "swir16", "swir22", "lwir11") if name in scene.band_names]
    if len(names) < 5:
        return f"wrong: bands are read as {', '.join(scene.band_names)}"
    return same(pixels(scene).band("nir08")[8:], np.full((SIDE - 8, SIDE), 0.5), "near infrared")


@situation("3", "one model for HLS S30 and L30: the same names for the same bands")
def _(folder: Path) -> str:
    hls(folder / "s", "S30", ("B02", "B03", "B04", "B8A", "B11", "B12"))
    hls(folder / "l", "L30", ("B02", "B03", "B04", "B05", "B06", "B07"))
    one, two = opened(folder / "s"), opened(folder / "l")
    shared = sorted(set(one.band_names) & set(two.band_names))
    wanted = sorted(("blue", "green", "red", "nir08", "swir16", "swir22"))
    return "right" if shared == wanted else f"wrong: in common {', '.join(shared)}"


@situation("3", "a STAC item of HLS L30")
def _(folder: Path) -> str:
    hls(folder, "L30", ("B04", "B05", "B06"))
    name = "HLS.L30.T33UUU.2024153T101031.v2.0"
    assets = {key: {"href": f"{name}.{key}.tif", "type": "image/tiff"} for key in ("B04", "B05", "B06", "Fmask", "SZA")}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "HLSL30_2.0", "geometry": None,
        "links": [], "properties": {"datetime": "2024-06-01T10:10:31Z", "platform": "LANDSAT-8"}, "assets": assets,
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item), encoding="utf-8")
    scene = opened(folder / "item.json")
    if scene.band_names != ("red", "nir08", "swir16"):
        return f"wrong: bands are read as {', '.join(scene.band_names)}"
    return same(pixels(scene).band("nir08")[8:], np.full((SIDE - 8, SIDE), 0.5), "near infrared")


def hls(folder: Path, kind: str, keys: tuple[str, ...]) -> None:
    """An HLS product: 0.5 where near infrared is, 0.1 elsewhere; clouds in the first eight rows."""
    start = f"HLS.{kind}.T33UUU.2024153T101031.v2.0"
    near = {"L30": "B05", "S30": "B8A"}[kind]
    for key in keys:
        write(
            folder / f"{start}.{key}.tif", np.full((SIDE, SIDE), 5000 if key == near else 1000, np.int16), nodata=-9999
        )
    write(folder / f"{start}.Fmask.tif", np.where(ROWS < 8, 2, 0).astype(np.uint8), nodata=255)
    write(folder / f"{start}.SZA.tif", np.full((SIDE, SIDE), 3000, np.uint16), nodata=40000)


# --- 4. quality layers as input bands


def landsat(folder: Path) -> Path:
    """Level 2 files of Landsat 8 without their MTL: reflectance 0.1, fill at the left, clouds in the first rows."""
    start = "LC08_L2SP_193024_20240601_20240610_02_T1"
    dn = np.full((SIDE, SIDE), round((0.1 + 0.2) / 2.75e-5), np.uint16)
    dn[:, :4] = 0
    for key in ("SR_B4", "SR_B5"):
        write(folder / f"{start}_{key}.TIF", dn)
    write(folder / f"{start}_QA_PIXEL.TIF", np.where(ROWS < 8, 1 << 3, 1 << 6).astype(np.uint16))
    write(folder / f"{start}_SR_QA_AEROSOL.TIF", np.zeros((SIDE, SIDE), np.uint8))
    return folder


@situation("4", "Landsat files without an MTL: QA_PIXEL masks and is no band")
def _(folder: Path) -> str:
    scene = opened(landsat(folder / "s"))
    if len(scene.band_names) != 2:
        return f"wrong: bands are {', '.join(scene.band_names)}"
    return same(pixels(scene).valid, (ROWS >= 8) & (COLS >= 4), "the mask")


@situation("4", "Landsat files without an MTL: Collection 2 scaling by the name")
def _(folder: Path) -> str:
    raster = pixels(opened(landsat(folder / "s"), mask=()))
    return same(raster.values[0][raster.valid], np.full(int((COLS >= 4).sum()), 0.1), "reflectance")


def safe(folder: Path) -> Path:
    from tests.fakes.safe import Safe, write_safe

    return next(write_safe(folder, Safe(nodata_columns_m=100)).glob("GRANULE/*/IMG_DATA/R10m"))


@situation("4", "R10m of a SAFE: the XML around it, zero is no data")
def _(folder: Path) -> str:
    inside = safe(folder)
    scene = opened(inside, mask=())
    raster, whole = pixels(scene), pixels(opened(inside.parents[3], mask=()))
    if set(scene.band_names) != {"blue", "green", "red", "nir"}:
        return f"wrong: bands are {', '.join(scene.band_names)}"
    return same(raster.band("red") * whole.valid, whole.band("red"), "reflectance")


@situation("4", "a single JP2 of a SAFE: the XML around it, zero is no data")
def _(folder: Path) -> str:
    file = next(safe(folder).glob("*_B04_10m.jp2"))
    raster, whole = pixels(opened(file, mask=())), pixels(opened(file.parents[4], mask=()))
    return same(raster.values[0] * whole.valid, whole.band("red"), "reflectance")


@situation("4", "a file with SCL and AOT among its bands")
def _(folder: Path) -> str:
    layers = np.stack([PLACES, np.where(ROWS < 8, 9, 4), PLACES]).astype(np.uint16)
    scene = opened(write(folder / "a.tif", layers, names=("B4", "SCL", "AOT")))
    if len(scene.band_names) != 1:
        return f"wrong: bands are {', '.join(scene.band_names)}"
    return same(pixels(scene).valid, ROWS >= 8, "the mask")


@situation("4", "a Fmask given as a scene")
def _(folder: Path) -> str:
    path = write(folder / "HLS.S30.T33UUU.2024153T101031.v2.0.Fmask.tif", np.where(ROWS < 8, 2, 0).astype(np.uint8))
    try:
        names = opened(path).band_names
    except PipelineError as err:
        return f"said: {err.what}"
    return f"wrong: learned from as band {', '.join(names)}"


@situation("4", "a STAC item of no known sensor with scl, aot and visual")
def _(folder: Path) -> str:
    write(folder / "red.tif", np.full((SIDE, SIDE), 0.1, np.float32))
    write(folder / "scl.tif", np.where(ROWS < 8, 9, 4).astype(np.uint8))
    write(folder / "aot.tif", np.zeros((SIDE, SIDE), np.uint16))
    assets = {key: {"href": f"{key}.tif", "type": "image/tiff"} for key in ("red", "scl", "aot")}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [],
        "properties": {"datetime": "2024-06-01T10:10:31Z"}, "assets": assets,
    }  # fmt: skip
    assets["red"]["raster:bands"] = [{"data_type": "float32"}]  # type: ignore[assignment]
    (folder / "item.json").write_text(json.dumps(item), encoding="utf-8")
    scene = opened(folder / "item.json")
    if scene.band_names != ("red",):
        return f"wrong: bands are {', '.join(scene.band_names)}"
    return same(pixels(scene).valid, ROWS >= 8, "the mask")


# --- 5. fill that nobody declared


def filled(folder: Path, value: float) -> Path:
    values = two_bands()
    values[:, :, :20] = value
    return write(folder / "scene.tif", values, names=("red", "nir"))


@situation("5", "-9999 over a third of the scene that no tag declares")
def _(folder: Path) -> str:
    status, text, written = init(folder, filled(folder, -9999), labels_in(folder))
    proposed = [scene.get("nodata") for scene in written.get("scenes", [])]
    if proposed == [-9999]:
        return "said: looks like fill, nodata proposed"
    return "wrong: nothing said" if status == 0 else f"refused: {text}"


@situation("5", "0 under labels: run")
def _(folder: Path) -> str:
    scene, labels = filled(folder, 0), labels_in(folder)
    _, _, written = init(folder, scene, labels)
    for item in written["scenes"]:
        item.pop("nodata", None)
    (folder / "config.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    status, text = command("chips", folder / "config.yaml")
    return "said: run refuses, as it looks like fill" if status == 2 and "fill" in text else "wrong: learned from"


@situation("5", "true zeros of single bands")
def _(folder: Path) -> str:
    values = two_bands()
    values[1, :, :20] = 0
    scene = opened(write(folder / "scene.tif", values, names=("red", "nir")))
    with contextlib.suppress(ImportError):
        from pipeline.scenes.fill import find_fill

        if find_fill(scene) is not None:
            return "wrong: taken for fill"
    return same(pixels(scene).valid, np.ones((SIDE, SIDE), bool), "the mask")


# --- 6. alpha believed without a look


def four_bands(folder: Path, fourth: NDArray[np.uint8]) -> Path:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.integers(20, 200, (3, SIDE, SIDE), dtype=np.uint8), fourth[None]])
    path = write(folder / "a.tif", values, photometric="RGB")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    return path


@situation("6", "near infrared of 8-bit R, G, B, NIR that is tagged alpha")
def _(folder: Path) -> str:
    nir = np.random.default_rng(2).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
    scene = opened(four_bands(folder, nir))
    if len(scene.band_names) != 4:
        return "wrong: near infrared masks"
    raster = pixels(scene)
    return same(raster.values[3], nir) if raster.valid.all() else "wrong: near infrared masks"


@situation("6", "a real alpha channel")
def _(folder: Path) -> str:
    scene = opened(four_bands(folder, np.where(COLS < 8, 0, 255).astype(np.uint8)))
    return same(pixels(scene).valid, COLS >= 8, "the mask") if len(scene.band_names) == 3 else "wrong: alpha is a band"


# --- 7. bands matched by position


@situation("7", "a VRT of files whose names say the bands")
def _(folder: Path) -> str:
    files = [write(folder / f"x_{key}.tif", PLACES) for key in ("B02", "B03")]
    source = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{file.name}'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, file in enumerate(files, 1)
    )
    place = ", ".join(str(value) for value in NORTH_UP.to_gdal())
    vrt = folder / "scene.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>{UTM}</SRS><GeoTransform>{place}</GeoTransform>'
        f"{source}</VRTDataset>"
    )
    names = opened(vrt).band_names
    return "right" if names == ("blue", "green") else f"wrong: bands are {', '.join(names)}"


# --- 8. codes


@situation("8", "classes called 0, 7 and 300")
def _(folder: Path) -> str:
    labels = labels_in(folder, squares(names=("0", "7", "300")))
    status, text, written = init(folder, write(folder / "scene.tif", two_bands(), names=("red", "nir")), labels)
    codes = {item["name"]: item["code"] for item in written.get("classes", [])}
    if status or codes.get("7") != 7:
        return f"refused: {text}" if status else f"wrong: codes are {codes}"
    return "said: which codes changed" if "300 becomes" in text else "wrong: codes changed without a word"


# --- 9. tracebacks and dead ends


@situation("9", "file stems as job names: my map.yaml, Karte März.yaml, 地图.yaml")
def _(folder: Path) -> str:
    scene, labels = write(folder / "scene.tif", two_bands(), names=("red", "nir")), labels_in(folder)
    for name in ("my map.yaml", "Karte März.yaml", "地图.yaml"):
        status, text, written = init(folder, scene, labels, output=name)
        if status or not written:
            return f"refused: {text}"
    return "right"


@situation("9", "labels in cp1252 that nothing declares")
def _(folder: Path) -> str:
    from pipeline.labels.source import read_labels

    text = json.dumps(
        json.loads(squares(UTM, names=("Wälder", "Äcker")).to_crs("EPSG:4326").to_json()), ensure_ascii=False
    )
    (folder / "labels.geojson").write_bytes(text.encode("cp1252"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = read_labels(folder / "labels.geojson", field="class").scheme.names
    if sorted(names) != ["Wälder", "Äcker"]:
        return f"wrong: classes are {names}"
    return "said: the encoding is guessed" if any("UTF-8" in str(item.message) for item in caught) else "wrong: no word"


@situation("9", "ENVI whose bands are all called Layer_1")
def _(folder: Path) -> str:
    path = write(folder / "a.img", np.stack([PLACES, PLACES + 1]), driver="ENVI")
    header = path.with_suffix(".hdr")
    text = header.read_text().partition("band names")[0] + "band names = {\nLayer_1,\nLayer_1}\n"
    header.write_text(text)
    return same(pixels(opened(path)).values[1], PLACES + 1)


@situation("9", "counts without names: init with --bands and --scale")
def _(folder: Path) -> str:
    scene = write(folder / "scene.tif", (two_bands() * 10_000).astype(np.uint16))
    more = ("--bands", "red,nir", "--scale", "0.0001", "--offset", "0")
    status, text, written = init(folder, scene, labels_in(folder), *more)
    if status:
        return f"refused: {text}"
    return "right" if written["scenes"][0].get("bands") == ["red", "nir"] else "wrong: not written"


@situation("9", "NetCDF with several variables inside")
def _(folder: Path) -> str:
    file = netcdf(folder / "a.nc")
    try:
        opened(file)
    except PipelineError as err:
        if "ndvi" not in str(err):
            return f"refused without help: {err}"
    return same(pixels(opened(f'NETCDF:"{file}":ndvi')).values[0], PLACES.astype(np.float32))


def netcdf(path: Path) -> Path:
    from scipy.io import netcdf_file

    with netcdf_file(path, "w") as file:
        file.createDimension("y", SIDE)
        file.createDimension("x", SIDE)
        for name, start, step in (("x", NORTH_UP.c, 10.0), ("y", NORTH_UP.f, -10.0)):
            axis = file.createVariable(name, "f8", (name,))
            axis[:] = start + step * (np.arange(SIDE) + 0.5)
            axis.standard_name = f"projection_{name}_coordinate"
            axis.units = "m"
        crs = file.createVariable("crs", "i4", ())
        crs.spatial_ref = CRS.from_user_input(UTM).to_wkt()
        crs.grid_mapping_name = "transverse_mercator"
        for number, name in enumerate(("ndvi", "evi")):
            layer = file.createVariable(name, "f4", ("y", "x"))
            layer[:] = PLACES.astype(np.float32) + number
            layer.grid_mapping = "crs"
    return path


@situation("9", "two scenes of one file name in two folders")
def _(folder: Path) -> str:
    scenes = [write(folder / year / "scene.tif", two_bands(), names=("red", "nir")) for year in ("2020", "2021")]
    status, text, written = init(folder, scenes[0], labels_in(folder), "--scene", scenes[1])
    names = [scene["id"] for scene in written.get("scenes", [])]
    if status:
        return f"refused: {text}"
    return "right" if len(set(names)) == 2 else f"wrong: both are called {names[0]}"


@situation("9", "a polygon across 180 degrees")
def _(folder: Path) -> str:
    from pipeline.labels.rasterise import burn
    from pipeline.labels.source import read_labels

    grid = Grid(CRS.from_epsg(4326), Affine(0.01, 0, 179.7, 0, -0.01, 0.3), 60, 60)
    across = shapely.Polygon([(179.9, -0.1), (-179.9, -0.1), (-179.9, 0.1), (179.9, 0.1)])
    frame = gpd.GeoDataFrame({"class": ["field"]}, geometry=[across], crs="EPSG:4326")
    found = burn(read_labels(labels_in(folder, frame), field="class"), grid)
    inside = (COLS[:60, :60] >= 20) & (COLS[:60, :60] < 40) & (ROWS[:60, :60] >= 20) & (ROWS[:60, :60] < 40)
    return same(found.dense(grid.window)[0] != 255, inside, "labels")


@situation("9", "a QGIS source: labels.gpkg|layername=fields")
def _(folder: Path) -> str:
    labels = labels_in(folder, layer="fields")
    scene = write(folder / "scene.tif", two_bands(), names=("red", "nir"))
    status, text, written = init(folder, scene, f"{labels}|layername=fields")
    if status:
        return f"refused: {text}"
    return "right" if written["labels"]["layer"] == "fields" else "wrong: another layer"


@situation("9", "a KML with a folder per class")
def _(folder: Path) -> str:
    from pipeline.labels.source import read_labels

    place = (
        "<Placemark><Polygon><outerBoundaryIs><LinearRing><coordinates>{0},0 {1},0 {1},1 {0},1 {0},0</coordinates>"
        "</LinearRing></outerBoundaryIs></Polygon></Placemark>"
    )
    parts = "".join(
        f"<Folder><name>{name}</name>{place.format(start, start + 1)}</Folder>"
        for name, start in (("field", 10), ("forest", 12))
    )
    kml = f'<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document>{parts}</Document></kml>'
    (folder / "a.kml").write_text(kml)
    names = read_labels(folder / "a.kml", field="Folder").scheme.names
    return "right" if sorted(names) == ["field", "forest"] else f"wrong: classes are {names}"


@situation("9", "the XML of a SAFE in the place of its folder")
def _(folder: Path) -> str:
    inside = safe(folder)
    xml = next(inside.parents[3].glob("MTD_MSIL2A.xml"))
    return same(pixels(opened(xml, mask=())).values, pixels(opened(inside.parents[3], mask=())).values, "reflectance")


@situation("9", "Erdas Imagine whose bands are all called Band 1")
def _(folder: Path) -> str:
    path = write(folder / "a.img", np.stack([PLACES, PLACES + 1]), driver="HFA", names=("Band 1", "Band 1"))
    return same(pixels(opened(path)).values[1], PLACES + 1)


@situation("9", "a VRT of bands of different types")
def _(folder: Path) -> str:
    from rasterio.shutil import copy

    write(folder / "a.tif", PLACES)
    write(folder / "b.tif", (PLACES / 10).astype(np.float32))
    parts = []
    for name in ("a", "b"):
        copy(str(folder / f"{name}.tif"), str(folder / f"{name}.vrt"), driver="VRT")
        text = (folder / f"{name}.vrt").read_text()
        parts.append((text, text[text.index("<VRTRasterBand") : text.index("</VRTDataset>")]))
    second = parts[1][1].replace('band="1"', 'band="2"')
    (folder / "ab.vrt").write_text(parts[0][0].replace("</VRTDataset>", f"{second}</VRTDataset>"))
    return same(pixels(opened(folder / "ab.vrt")).values[1], (PLACES / 10).astype(np.float32))


# --- 10. clouds where the product has no mask


@situation("10", "clouds asked of a network for a scene of counts")
def _(folder: Path) -> str:
    path = write(folder / "s.tif", np.stack([PLACES] * 4), names=("blue", "green", "red", "nir"))
    try:
        from pipeline.scenes.clouds import with_clouds
    except ImportError:
        return "wrong: clouds are not masked"
    try:
        with_clouds(opened(path), "network", folder=folder)
    except PipelineError as err:
        return f"said: {err.what}"
    return "wrong: looked for in counts"


# --- 11. embeddings


def embeddings(folder: Path) -> tuple[Path, NDArray[np.int8]]:
    """64 bands of int8 as Google writes them: each pixel its own, -128 in the first row."""
    stored = ((PLACES[None] * 7 + np.arange(64)[:, None, None] * 13) % 255 - 127).astype(np.int8)
    stored[:, 0] = -128
    return write(folder / "aef.tif", stored, names=tuple(f"A{number:02d}" for number in range(64))), stored


@situation("11", "AlphaEarth: int8, -128 no data, the signed square")
def _(folder: Path) -> str:
    path, stored = embeddings(folder)
    raster = pixels(opened(path))
    truth = np.sign(stored) * (stored / np.float64(127.5)) ** 2
    if raster.valid[0].any():
        return "wrong: -128 is a value"
    return same(np.round(raster.values[:, 1:], 5), np.round(truth[:, 1:], 5).astype(np.float32), "values")


@situation("11", "TESSERA: two versions in one run")
def _(folder: Path) -> str:
    from pipeline.scenes.opening import check_treatment

    paths = [folder / "one.tif", folder / "other.tif"]
    for path, version in zip(paths, ("1.0", "1.1"), strict=True):
        names = tuple(f"Tessera_Band_{number}" for number in range(3))
        write(path, np.ones((3, SIDE, SIDE), np.float32), names=names)
        with rasterio.open(path, "r+") as file:
            file.update_tags(TESSERA_DATASET_VERSION=version)
    try:
        check_treatment([opened(path) for path in paths])
    except PipelineError as err:
        return f"said: {err.what}"
    return "wrong: mixed"


# --- 12. EOPF Zarr


@situation("12", "Sentinel-2 L2A in the Zarr of EOPF: scale and offset from attributes, SCL masks")
def _(folder: Path) -> str:
    from tests.fakes.eopf import LEFT, TOP, Eopf, write_eopf
    from tests.fakes.safe import ramp

    raster = pixels(opened(write_eopf(folder, Eopf(cloud_px=3))))
    x, y = np.meshgrid(LEFT + (np.arange(120) + 0.5) * 10, TOP - (np.arange(120) + 0.5) * 10)
    if np.abs(raster.band("red") - ramp("B04", x, y))[6:, 6:].max() > 1e-4:
        return "wrong: reflectance"
    return same(raster.valid[:6, :6], np.zeros((6, 6), dtype=bool), "the mask")


# --- results


def result_of(case: Situation) -> str:
    """What came of a case: "right", "said: ...", "refused: ...", "wrong: ..." or "traceback: ..."."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return case.judge(Path(name))
        except PipelineError as err:
            return f"refused: {err}".replace(name, "")
        except Exception as err:  # noqa: BLE001 - a traceback is a result
            return f"traceback: {type(err).__name__}: {err}".replace(name, "")


def results() -> Iterator[tuple[Situation, str]]:
    """Every case with its result."""
    for case in SITUATIONS:
        yield case, result_of(case)


def main() -> None:
    """Print the table."""
    print("| item | on disk | result |\n| --- | --- | --- |")  # noqa: T201
    for case, result in results():
        print(f"| {case.kind} | {case.name} | {' '.join(result.split())[:110].replace('|', '/')} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
