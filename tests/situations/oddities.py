"""Files that ended in a traceback, or in an error that did not help."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from pipeline.errors import PipelineError
from pipeline.grid import Grid
from tests.situations.case import situation
from tests.situations.files import (
    COLS,
    NORTH_UP,
    PLACES,
    ROWS,
    SIDE,
    UTM,
    init,
    labels_in,
    opened,
    pixels,
    same,
    squares,
    two_bands,
    write,
)
from tests.situations.products import safe

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
