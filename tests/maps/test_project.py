"""A project opens complete, also after its folder was moved; a quicklook shows what is there."""

from __future__ import annotations

import re
import shutil
import zipfile
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from defusedxml.ElementTree import fromstring
from PIL import Image

from pipeline.errors import InputError, OutputError
from pipeline.legend import ClassScheme, LandClass
from pipeline.maps.geotiff import scene_files, write_class_map, write_percent
from pipeline.maps.look import scale_bar_m, shown_bands, write_quicklook
from pipeline.maps.project import SceneLayers, StyledLayer, VectorLayer, label_layer, split_layer, write_project
from pipeline.maps.style import CONFIDENCE, DISSIMILARITY, ENTROPY, MARGIN, Category, categorised, qml
from pipeline.maps.vectors import PackageLayer, write_geopackage, write_polygons
from pipeline.maps.vrt import write_groups, write_mosaic, write_scene_view
from pipeline.scenes.opening import open_scene
from tests.fakes.pixels import ArrayPixels

from .conftest import GEOGRAPHIC, PROJECTED, make_codes, make_percent, make_scheme
from .qgis import what_qgis_shows, what_the_layout_shows


@pytest.fixture(scope="module", params=[PROJECTED, GEOGRAPHIC], ids=["projected", "geographic"])
def made(request, tmp_path_factory):
    """A folder with a scene and the maps of it, and its grid."""
    grid, folder = request.param, tmp_path_factory.mktemp("made")
    scheme, codes = make_scheme(), make_codes()
    percent = make_percent(codes)
    maps = folder / "maps"
    (folder / "input").mkdir(parents=True)
    bands = ("blue", "green", "red", "nir")
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 4, "crs": grid.crs, "transform": grid.transform}
    rng = np.random.default_rng(1)
    with rasterio.open(folder / "input" / "s.tif", "w", height=grid.height, width=grid.width, **profile) as target:
        for number, name in enumerate(bands, 1):
            target.set_band_description(number, name)
            target.write((codes.astype(np.uint16) * 400 * number + rng.integers(0, 200, codes.shape)), number)
        target.scales, target.offsets = (0.0001,) * 4, (0.0,) * 4
    write_class_map(maps / "s_lc.tif", ArrayPixels(codes), grid=grid, scheme=scheme)
    write_percent(maps / "s_conf.tif", ArrayPixels(percent), grid=grid, layer=CONFIDENCE)
    write_percent(maps / "s_probabilities.tif", ArrayPixels(np.stack([percent] * 4)), grid=grid, layer=scheme)
    write_polygons(maps / "s_lc.gpkg", ArrayPixels(codes), grid=grid, scheme=scheme)
    frame = {"cover": [scheme.names[0]], "split": ["train"]}
    cell = shapely.box(*grid.bounds)
    gpd.GeoDataFrame(frame, geometry=[cell], crs=grid.crs.to_wkt()).to_file(folder / "input" / "l.gpkg", layer="l")
    return folder, grid


@pytest.fixture
def run(made, tmp_path):
    """A copy of it; returns (folder, layers)."""
    folder, (original, grid) = tmp_path / "run", made
    shutil.copytree(original, folder)
    maps = folder / "maps"
    view = write_scene_view(maps / "s_scene.vrt", open_scene(folder / "input" / "s.tif"))
    return folder, SceneLayers("s", grid, scene_files(maps / "s_lc.tif"), view)


def test_every_layer_opens_after_the_folder_was_moved(run, scheme, tmp_path):
    folder, layers = run
    vectors = folder / "input" / "l.gpkg"
    labels, chips = label_layer(vectors, attribute="cover", scheme=scheme, layer="l"), split_layer(vectors, layer="l")
    write_project(folder / "maps" / "s.qgz", [layers], scheme=scheme, labels=labels, chips=chips)
    shutil.move(folder, tmp_path / "elsewhere")
    shown = {layer["name"]: layer for layer in what_qgis_shows(tmp_path / "elsewhere" / "maps" / "s.qgz")}
    expected = {"Land cover", "Confidence (%)", "Polygons", "Training labels", "Chips by split", "True colour"}
    assert set(shown) == expected | {"False colour (infrared)", *scheme.names}
    crs = f"EPSG:{layers.grid.crs.to_epsg()}"
    assert all(layer["valid"] and layer["in_tree"] and layer["crs"] == crs for layer in shown.values())
    assert all(layer["project_crs"] == crs for layer in shown.values())
    for name in ("Land cover", "Polygons", "Training labels"):
        assert shown[name]["labels"] == list(scheme.names)
    assert shown["True colour"]["renderer"] == "multibandcolor"


def test_every_layer_on_request_has_its_place(run, scheme, percent):
    folder, layers = run
    for layer in (DISSIMILARITY, ENTROPY, MARGIN):
        write_percent(folder / "maps" / f"s_{layer.suffix}.tif", ArrayPixels(percent), grid=layers.grid, layer=layer)
    found = replace(layers, files=scene_files(layers.files.class_map))
    write_project(folder / "maps" / "s.qgz", [found], scheme=scheme)
    shown = {layer["name"]: layer for layer in what_qgis_shows(folder / "maps" / "s.qgz")}
    for name in ("Entropy (%)", "Margin (%)", "Unlike the training data (%)"):
        assert shown[name]["valid"]
        assert shown[name]["in_tree"]
        assert shown[name]["renderer"] == "singlebandpseudocolor"


def test_classes_are_merged_into_groups_for_display(run, scheme, codes):
    folder, layers = run
    groups = ClassScheme((LandClass(1, "blue & green", "#0072b2"), LandClass(3, "ground", "#f0e442")))
    path = folder / "maps" / "s_groups.vrt"
    write_groups(path, layers.files.class_map, group_of={1: 1, 2: 1, 3: 3, 4: 3}, scheme=groups)
    with rasterio.open(path) as dataset:
        assert np.array_equal(dataset.read(1), np.array([0, 1, 1, 3, 3], np.uint8)[codes])
    write_project(folder / "maps" / "s.qgz", [replace(layers, groups=(path, groups))], scheme=scheme)
    shown = {layer["name"]: layer for layer in what_qgis_shows(folder / "maps" / "s.qgz")}
    assert shown["Land cover, groups of classes"]["labels"] == ["blue & green", "ground"]


def test_layers_of_findings_keep_their_own_style(run, scheme, tmp_path):
    folder, layers = run
    squares = gpd.GeoDataFrame({"band": ["low"]}, geometry=[shapely.box(*layers.grid.bounds)],
                               crs=layers.grid.crs.to_wkt())  # fmt: skip
    style = qml(categorised("band", [Category("low", "below 50 %", "#d55e00")]))
    write_geopackage(folder / "blocks.gpkg", [PackageLayer("blocks", squares, style)], what="the blocks")
    found = StyledLayer("Accuracy by block", folder / "blocks.gpkg", "blocks")
    write_project(folder / "maps" / "s.qgz", [layers], scheme=scheme, findings=[found])
    shown = {layer["name"]: layer for layer in what_qgis_shows(folder / "maps" / "s.qgz")}
    assert shown["Accuracy by block"]["valid"]
    assert shown["Accuracy by block"]["labels"] == ["below 50 %"]


def test_the_layout_has_all_that_a_printed_map_needs(run, scheme):
    folder, layers = run
    project = folder / "maps" / "s.qgz"
    write_project(project, [layers], scheme=scheme, title="A & B", sources="Contains modified data 2024.")
    found = what_the_layout_shows(project, folder / "layout.png")
    assert set(found["items"]) >= {"map", "title", "legend", "scale", "north", "sources"}
    assert found["texts"]["title"] == "A & B"
    assert found["texts"]["sources"].startswith("Contains modified data 2024. ")
    assert found["legend"] == list(scheme.names)
    picture = np.asarray(Image.open(folder / "layout.png").convert("RGB")).reshape(-1, 3)
    colours = {tuple(map(int, colour)) for colour in np.unique(picture, axis=0)}
    assert {item.rgb for item in scheme.classes} <= colours


def test_an_outline_gets_thin_when_zoomed_out():
    (symbol,) = fromstring(categorised("c", [Category(1, "a", "#0072b2")], shape="outline")).findall("symbols/symbol")
    options = [{o.get("name"): o.get("value") for o in layer.iter("Option")} for layer in symbol.findall("layer")]
    assert [item["outline_width_unit"] for item in options] == ["RenderMetersInMapUnits"] * 2
    assert [item["border_width_map_unit_scale"] for item in options] == ["3x:0,0,1,0.26,1,1.3", "3x:0,0,1,0.12,1,0.66"]


def test_an_outline_stands_on_a_casing():
    rows = (Category("light", "light", "#f0e442"), Category("dark", "dark", "#0072b2"))
    symbols = fromstring(categorised("cover", rows, shape="outline")).findall("symbols/symbol")
    drawn = [[item.get("value") for item in s.iter("Option") if item.get("name") == "outline_color"] for s in symbols]
    assert drawn == [["0,0,0,255", "240,228,66,255"], ["255,255,255,255", "0,114,178,255"]]
    widths = [float(i.get("value")) for i in symbols[0].iter("Option") if i.get("name") == "outline_width"]
    assert widths[0] > widths[1]


def test_no_path_is_absolute_and_ids_are_long_enough(run, scheme):
    folder, layers = run
    write_project(folder / "maps" / "s.qgz", [layers], scheme=scheme)
    with zipfile.ZipFile(folder / "maps" / "s.qgz") as archive:
        assert archive.namelist() == ["s.qgs"]
        text = archive.read("s.qgs").decode()
    assert str(folder) not in text
    sources = re.findall(r"<datasource>(.*?)</datasource>", text)
    assert sources
    assert all(source.startswith(("./", "../")) for source in sources)
    ids = re.findall(r"<id>(.*?)</id>", text)
    assert len(set(ids)) == len(ids)
    assert all(len(identity) > 10 for identity in ids)


def test_several_scenes_share_a_project_with_a_mosaic_on_top(run, scheme, codes):
    folder, layers = run
    other = folder / "maps" / "t_lc.tif"
    write_class_map(other, ArrayPixels(codes), grid=layers.grid, scheme=scheme)
    mosaic = folder / "maps" / "mosaic.vrt"
    grid = write_mosaic(mosaic, [layers.files.class_map, other])
    scenes = [layers, SceneLayers("t", layers.grid, scene_files(other))]
    write_project(folder / "maps" / "all.qgz", scenes, scheme=scheme, mosaic=(mosaic, grid))
    shown = what_qgis_shows(folder / "maps" / "all.qgz")
    assert all(layer["valid"] and layer["in_tree"] for layer in shown)
    assert [layer["name"] for layer in shown].count("Land cover") == 2
    assert [layer["labels"] for layer in shown if layer["name"] == "Land cover (mosaic)"] == [list(scheme.names)]


def test_equal_projects_are_equal_bytes(run, scheme):
    folder, layers = run
    target = folder / "maps" / "s.qgz"
    write_project(target, [layers], scheme=scheme)
    first = target.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        write_project(target, [layers], scheme=scheme)
    write_project(target, [layers], scheme=scheme, overwrite=True)
    assert target.read_bytes() == first


def test_a_vector_file_that_is_not_there_is_an_input_error(run, scheme):
    folder, layers = run
    missing = VectorLayer(folder / "no.gpkg", "a", ())
    with pytest.raises(InputError, match="vector file"):
        write_project(folder / "maps" / "s.qgz", [layers], scheme=scheme, labels=missing)


def test_scene_view_reads_the_scenes_own_pixels(run):
    folder, layers = run
    with rasterio.open(layers.view.path) as view, rasterio.open(folder / "input" / "s.tif") as scene:
        red, green, blue = layers.view.first.bands
        assert np.array_equal(view.read([red, green, blue]), scene.read([3, 2, 1]))
        assert view.descriptions == ("red", "green", "blue", "nir")
    low, high = layers.view.first.limits[0]
    assert 0 <= low < high <= 65535


def test_only_red_green_and_blue_are_true_colour(run, scheme):
    folder, layers = run
    assert layers.view.first.name == "True colour"
    with rasterio.open(folder / "input" / "s.tif", "r+") as scene:
        for number, name in enumerate(("nir", "swir16", "swir22", "vv"), 1):
            scene.set_band_description(number, name)
    view = write_scene_view(folder / "maps" / "n.vrt", open_scene(folder / "input" / "s.tif"))
    assert (view.first.bands, view.false_colour) == ((1, 2, 3), None)
    write_project(folder / "maps" / "n.qgz", [replace(layers, view=view)], scheme=scheme)
    with zipfile.ZipFile(folder / "maps" / "n.qgz") as archive:
        text = archive.read("n.qgs").decode()
    assert "<layername>Bands nir, swir16, swir22 as red, green, blue</layername>" in text
    assert "True colour" not in text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("nir", "red", "green", "swir16"), ("nir", "red", "green")),
        (("ndvi_t1", "ndvi_t2", "ndvi_t3"), ("ndvi_t1", "ndvi_t2", "ndvi_t3")),
        (("blue_t1", "green_t1", "red_t1", "blue_t2", "green_t2", "red_t2"), ("red_t1", "green_t1", "blue_t1")),
        (
            (*(f"band {number} reflectance" for number in (1, 2, 3, 4, 5, 7)), "band 6 temperature"),
            ("band 3 reflectance", "band 2 reflectance", "band 1 reflectance"),
        ),
        (("pm10", "easting", "northing"), ("pm10",)),
        (("418 nm", "1650 nm", "2200 nm"), ("418 nm", "1650 nm", "2200 nm")),
    ],
)
def test_bands_without_names_of_colours_are_shown_too(names, expected):
    assert shown_bands(names)[0] == expected


def test_quicklook_shows_classes_in_their_colours(run, scheme, tmp_path):
    folder, layers = run
    target = tmp_path / "q.png"
    scene = open_scene(folder / "input" / "s.tif")
    write_quicklook(
        target, layers.files.class_map, scene=scene, confidence=layers.files.layers[CONFIDENCE.key], title="s"
    )
    pixels = np.asarray(Image.open(target).convert("RGB")).reshape(-1, 3)
    found = {tuple(map(int, colour)) for colour in np.unique(pixels, axis=0)}
    assert {item.rgb for item in scheme.classes} <= found
    first = target.read_bytes()
    write_quicklook(
        target,
        layers.files.class_map,
        scene=scene,
        confidence=layers.files.layers[CONFIDENCE.key],
        title="s",
        overwrite=True,
    )
    assert target.read_bytes() == first


def test_scale_bars_are_round_and_fit():
    for width in (30.0, 999.0, 15_360.0, 109_800.0, 3e6):
        bar = scale_bar_m(width)
        assert bar <= 0.3 * width < 2.6 * bar
        assert f"{bar:e}"[0] in "125"
