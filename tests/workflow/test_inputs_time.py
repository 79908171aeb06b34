"""What the configuration's inputs make of scenes: dates joined, layers and indices added, masks, mixed treatment."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from pipeline.config import load_config
from pipeline.errors import ConfigError, ModelError, PipelineError, SceneError, SceneWarning
from pipeline.grid import Window
from pipeline.model.bundle import load_bundle
from pipeline.workflow.inputs import open_sources
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.predict import predict_maps
from tests.fakes.finished import run_job
from tests.fakes.landsat import ULX, ULY, Landsat, write_landsat
from tests.fakes.rasters import TRANSFORM, write_raster
from tests.fakes.safe import Safe, write_safe
from tests.fakes.small_world import BANDS, CLASSES, SPECTRA, reflectance, settings, truth, write_scene, write_settings
from tests.inference.models import changes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.raster import Raster
    from pipeline.scenes.scene import Source

DAYS = ("2020-04-01", "2020-06-01", "2020-08-01")
HOLE = (slice(0, 8), slice(0, 8))


@pytest.fixture
def dates(tmp_path: Path) -> list[dict[str, Any]]:
    """Three dates of the small world, brighter by 0.1 each; the second has a hole."""
    items = []
    for number, day in enumerate(DAYS):
        values = reflectance() + np.float32(0.1 * number)
        if number == 1:
            values[:, *HOLE] = np.nan
        write_scene(tmp_path / f"s{number}.tif", values)
        items.append({"path": f"s{number}.tif", "acquired_utc": f"{day}T10:00:00Z"})
    return items


def sources(folder: Path, **changes: Any) -> tuple[Source, ...]:
    return open_sources(load_config(write_settings(folder, **changes)))


def read(source: Source) -> Raster:
    with source.open() as reader:
        return reader.read(source.grid.window)


def test_three_dates_become_one_stack_named_by_dates(tmp_path: Path, dates: list[dict[str, Any]]) -> None:
    (stack,) = sources(tmp_path, scenes=dates, inputs={"time": "stack", "bands": ["red", "nir"]})
    assert stack.band_names == tuple(f"{band}_{day}" for day in DAYS for band in ("red", "nir"))
    raster = read(stack)
    assert raster.valid.all()
    between = (raster.band(f"red_{DAYS[0]}") + raster.band(f"red_{DAYS[2]}")) / 2
    # 1 June is 61 of the 122 days: half way.
    np.testing.assert_allclose(raster.band(f"red_{DAYS[1]}")[HOLE], between[HOLE], atol=1e-6)


def test_how_dates_are_stacked_can_be_said(tmp_path: Path, dates: list[dict[str, Any]]) -> None:
    def stack(**how: Any) -> Raster:
        (source,) = sources(tmp_path, scenes=dates, inputs={"time": "stack", "bands": ["red"], "stack": how})
        return read(source)

    ordered = stack(naming="order", validity=True)
    assert ordered.bands == ("red_t1", "valid_t1", "red_t2", "valid_t2", "red_t3", "valid_t3")
    assert not ordered.band("valid_t2")[HOLE].any()
    assert ordered.band("valid_t2").sum() == 96 * 96 - 64
    for strict in (stack(fill="none"), stack(min_dates=3)):
        assert not strict.valid[HOLE].any()
        assert strict.valid.sum() == 96 * 96 - 64
    nearest = stack(fill="nearest", naming="order")
    assert set(np.unique(nearest.band("red_t2")[HOLE])) <= set(
        np.unique([nearest.band("red_t1")[HOLE], nearest.band("red_t3")[HOLE]])
    )
    assert stack(regular=[100, 150, 200]).bands == ("red_doy100", "red_doy150", "red_doy200")


@pytest.mark.parametrize("method", ["median", "medoid", "greenest"])
def test_three_dates_become_one_composite(tmp_path: Path, dates: list[dict[str, Any]], method: str) -> None:
    (composite,) = sources(tmp_path, scenes=dates, inputs={"time": method})
    assert composite.band_names == BANDS
    raster = read(composite)
    assert raster.valid.all()
    each = np.stack([read(source).values for source in sources(tmp_path, scenes=dates)])
    clear = np.ones(raster.valid.shape, dtype=bool)
    clear[HOLE] = False
    if method == "median":
        np.testing.assert_allclose(raster.values[:, clear], np.median(each, axis=0)[:, clear], atol=1e-6)
    else:
        assert (raster.values[None] == each).all(axis=1).any(axis=0).all()
    (strict,) = sources(tmp_path, scenes=dates, inputs={"time": method, "stack": {"min_dates": 3}})
    assert not read(strict).valid[HOLE].any()


def test_scenes_of_a_group_are_joined_and_called_after_it(tmp_path: Path, dates: list[dict[str, Any]]) -> None:
    later = [
        item | {"id": f"later{number}", "group": "2021", "acquired_utc": f"2021-0{number + 5}-11T10:00:00Z"}
        for number, item in enumerate(dates)
    ]
    inputs = {"time": "stack", "stack": {"naming": "order"}}
    first, second = sources(tmp_path, scenes=[item | {"group": "2020"} for item in dates] + later, inputs=inputs)
    assert (first.id, second.id) == ("2020", "2021")
    assert first.band_names == second.band_names
    np.testing.assert_array_equal(read(first).band("red_t1"), read(second).band("red_t1"))


def test_indices_of_a_stack_are_those_of_every_date(tmp_path: Path, dates: list[dict[str, Any]]) -> None:
    (plain,) = sources(tmp_path, scenes=dates[:1], inputs={"indices": ["NDVI"]})
    inputs = {"time": "stack", "indices": ["NDVI"], "stack": {"naming": "order"}}
    (stack,) = sources(tmp_path, scenes=dates, inputs=inputs)
    assert [name for name in stack.band_names if "ndvi" in name] == ["ndvi_t1", "ndvi_t2", "ndvi_t3"]
    raster, single = read(stack), read(plain)
    red, nir = single.band("red"), single.band("nir")
    np.testing.assert_allclose(single.band("ndvi"), (nir - red) / (nir + red), atol=1e-6)
    np.testing.assert_array_equal(raster.band("ndvi_t1"), single.band("ndvi"))


def test_terrain_and_radar_are_stacked_on_the_scenes_grid(tmp_path: Path, dates: list[dict[str, Any]]) -> None:
    rows = np.arange(60)[:, None] * np.ones((1, 60))
    plane = (500 - 20.0 * 0.5 * rows).astype(np.float32)  # falls by 10 m every 20 m to the south
    coarse = TRANSFORM @ TRANSFORM.scale(2) @ TRANSFORM.translation(-2, -2)
    write_raster(tmp_path / "dem.tif", plane, transform=coarse)
    power = np.stack([np.full((60, 60), value, np.float32) for value in (0.1, 0.01)])
    write_raster(tmp_path / "s1.tif", power, transform=coarse)
    layers = [
        {"path": "dem.tif", "kind": "dem", "bands": ["slope", "northness"]},
        {"path": "s1.tif", "kind": "sentinel1"},
    ]
    (source,) = sources(tmp_path, scenes=dates[:1], inputs={"layers": layers})
    assert source.band_names == (*BANDS, "slope", "northness", "vv", "vh")
    raster = read(source)
    assert raster.valid.all()
    np.testing.assert_allclose(raster.band("slope")[4:-4, 4:-4], np.degrees(np.arctan(0.5)), atol=1e-3)
    np.testing.assert_allclose(raster.band("vv"), -10, atol=1e-5)
    np.testing.assert_allclose(raster.band("vh"), -20, atol=1e-5)


def test_a_file_whose_bands_are_dates_is_stacked_by_its_dates(tmp_path: Path) -> None:
    series = np.arange(3 * 16, dtype=np.float32).reshape(3, 4, 4)
    write_raster(tmp_path / "ndvi.tif", series)
    item = {"path": "ndvi.tif", "bands": ["ndvi"], "dates": [f"{day}T00:00:00Z" for day in DAYS]}
    (stack,) = sources(tmp_path, scenes=[item], inputs={"time": "stack"})
    assert stack.band_names == tuple(f"ndvi_{day}" for day in DAYS)
    np.testing.assert_array_equal(read(stack).values, series)
    with pytest.raises(SceneError, match="number of dates"):
        sources(tmp_path, scenes=[item | {"dates": item["dates"][:2]}], inputs={"time": "stack"})
    with pytest.raises(ConfigError, match=r"bands of a scene with dates.*expected one name"):
        sources(tmp_path, scenes=[item | {"bands": None}], inputs={"time": "stack"})


def test_the_ndvi_series_of_five_dates_is_a_stack(shared_data: Path, tmp_path: Path) -> None:
    days = [f"2016-{month:02d}-15T06:00:00Z" for month in (4, 5, 6, 7, 8)]
    item = {"path": str(shared_data / "fieldrs_ndvi" / "ndvi.tif"), "bands": ["ndvi"], "dates": days, "scale": 1e-4}
    (stack,) = sources(tmp_path, scenes=[item], inputs={"time": "stack", "stack": {"naming": "order"}})
    assert stack.band_names == tuple(f"ndvi_t{number}" for number in range(1, 6))
    raster = read(stack)
    assert raster.valid.mean() > 0.9


def test_masks_and_resolution_are_those_of_the_configuration(tmp_path: Path) -> None:
    product = write_safe(tmp_path, Safe(scl=np.full((60, 60), 11, np.uint8)))  # snow
    scenes = [{"path": product.name}]
    (default,) = sources(tmp_path, scenes=scenes, inputs={"bands": ["red"]})
    assert read(default).valid.all()
    (source,) = sources(tmp_path, scenes=scenes, inputs={"bands": ["red"], "mask": ["snow"], "resolution_m": 20})
    assert source.grid.pixel_size == (20, 20)
    assert not read(source).valid.any()
    with pytest.raises(ConfigError, match="mask"):
        sources(tmp_path, scenes=scenes, inputs={"mask": ["rain"]})


def test_mixed_treatment_is_refused_unless_asked_for_by_name(tmp_path: Path) -> None:
    surface, top = write_safe(tmp_path, Safe()), write_safe(tmp_path, Safe(level="L1C"))
    scenes = [{"path": surface.name}, {"path": top.name}]
    inputs: dict[str, Any] = {"bands": ["red", "nir"]}
    with pytest.raises(SceneError, match=r"treated differently.*allow_mixed"):
        sources(tmp_path, scenes=scenes, inputs=inputs)
    assert len(sources(tmp_path, scenes=scenes, inputs=inputs | {"allow_mixed": True})) == 2


def season(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The small world's classes on 30 m pixels."""
    if name == "lwir11":
        return np.full(x.shape, 290.0)
    cells = truth()[((ULY - y) // 30).astype(int), ((x - ULX) // 30).astype(int)]
    number = {"blue": 0, "green": 1, "red": 2}.get(name, 3)
    noise = np.random.default_rng(number).normal(0, 0.01, x.shape)
    return np.maximum(SPECTRA[cells, number] + noise, 0.001)


def write_season(folder: Path, *days: str, **what: Any) -> list[Path]:
    return [write_landsat(folder, Landsat(pixels=96, truth=season, date=day, **what)) for day in days]


def labels(path: Path) -> None:
    rows = [(row, col) for row in range(6, 96, 16) for col in range(6, 96, 16)]
    names = [CLASSES[truth()[row, col]] for row, col in rows]
    boxes = [
        shapely.box(ULX + 30 * col, ULY - 30 * (row + 4), ULX + 30 * (col + 4), ULY - 30 * row) for row, col in rows
    ]
    gpd.GeoDataFrame({"class": names}, geometry=boxes, crs="EPSG:32633").to_file(path)


@pytest.fixture(scope="module")
def seasons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on two years, each a stack of three Landsat dates of its own; gives the run folder."""
    folder = tmp_path_factory.mktemp("seasons")
    years = [
        write_season(folder, "20200401", "20200601", "20200801"),
        write_season(folder, "20210415", "20210610", "20210901"),
    ]
    labels(folder / "labels.gpkg")
    scenes = [{"path": path.name, "group": str(2020 + number)} for number, year in enumerate(years) for path in year]
    inputs = {"time": "stack", "stack": {"naming": "order"}, "bands": ["red", "nir08"], "indices": ["NDVI"]}
    config = write_settings(folder, scenes=scenes, inputs=inputs)
    assert set(settings()) >= {"map"}
    run_job(config, last="predict")
    return folder / "run"


def predict(model: Path, scenes: list[Path], output: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = [str(path) for path in scenes]
        predict_maps(None, model=model, scenes=paths, output=output, changes=changes(dtype="float32"))


def test_one_model_of_stacks_maps_a_year_it_has_not_seen(seasons: Path, tmp_path: Path) -> None:
    model = seasons / "model" / "model.safetensors"
    names = ("red", "nir08", "ndvi")
    assert load_bundle(model).bands == tuple(f"{name}_t{date}" for date in (1, 2, 3) for name in names)
    assert {path.name for path in (seasons / "maps").glob("*_lc.tif")} == {"2020_lc.tif", "2021_lc.tif"}
    unseen = write_season(tmp_path, "20230511", "20230612", "20230820")
    predict(model, unseen, tmp_path / "maps")
    (mapped,) = (tmp_path / "maps").glob("*_lc.tif")
    with rasterio.open(mapped) as dataset:
        codes = dataset.read(1)
        ledger = json.loads(dataset.tags()["LANDCOVER_LEDGER"])
    assert np.mean(codes == truth() + 1) > 0.9
    assert len(ledger["dates_measured"]) == 3


def test_scenes_unfit_for_a_model_of_stacks_are_one_line(seasons: Path, tmp_path: Path) -> None:
    model = seasons / "model" / "model.safetensors"
    two = write_season(tmp_path, "20230511", "20230612")
    with pytest.raises(ModelError, match="number of scenes for a model of stacked dates; got 2; expected 3"):
        predict(model, two, tmp_path / "maps")
    (odd,) = write_season(tmp_path, "20230820", leave_out=("SR_B5",))
    with pytest.raises(PipelineError) as caught:
        predict(model, [*two, odd], tmp_path / "maps")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "maps").glob("*.tif"))


def test_a_layer_that_is_gone_is_named(finished_with_layer: Path, tmp_path: Path) -> None:
    world = finished_with_layer.parent
    predict(finished_with_layer / "model" / "model.safetensors", [world / "scene.tif"], tmp_path / "maps")
    assert (tmp_path / "maps" / "scene_lc.tif").exists()
    (world / "dem.tif").rename(tmp_path / "dem.tif")
    with pytest.raises(ModelError, match=r"dem\.tif: the model needs a further raster \(dem\)"):
        predict(finished_with_layer / "model" / "model.safetensors", [world / "scene.tif"], tmp_path / "again")


@pytest.fixture
def finished_with_layer(tmp_path: Path) -> Path:
    """A model of the small world and a hill; gives the run folder."""
    from tests.fakes.small_world import write_world

    folder = tmp_path / "hill"
    folder.mkdir()
    config = write_world(folder, inputs={"layers": [{"path": "dem.tif", "kind": "dem", "bands": ["elevation"]}]})
    heights = np.random.default_rng(0).normal(300, 30, (96, 96)).astype(np.float32)
    write_raster(folder / "dem.tif", heights)
    run_job(config, last="train")
    return folder / "run"


def test_run_folder_and_maps_say_how_a_scene_was_read(seasons: Path) -> None:
    kept = json.loads((seasons / "ledger.json").read_text())["scenes"]
    assert [scene["scene"] for scene in kept] == ["2020", "2021"]
    with rasterio.open(seasons / "maps" / "2020_lc.tif") as dataset:
        tag = json.loads(dataset.tags()["LANDCOVER_LEDGER"])
    assert tag == kept[0]
    date = tag["scenes"][0]["source"] if "source" in tag["scenes"][0] else tag["scenes"][0]
    red = next(band for band in date["bands"] if band["band"] == "red")
    assert (red["scale"], red["offset"]) == (2.75e-5, -0.2)
    assert "MTL" in red["provenance"]
    assert any("cloud" in text for mask in date["masks"] for text in mask["bad"])
    measured = next(iter(tag["dates_measured"].values()))
    assert measured["offset_check"]["state"] in {"plausible", "not tested"}
    assert 0 <= measured["invalid_share"] <= 1


def test_an_offset_left_in_is_warned_of_when_the_chips_are_cut(tmp_path: Path) -> None:
    from pipeline.workflow.stages import run_stages
    from tests.fakes.small_world import write_labels

    write_scene(tmp_path / "scene.tif", reflectance() * 0.2 + np.float32(0.1))
    write_labels(tmp_path / "labels.gpkg")
    config = write_settings(tmp_path)
    with pytest.warns(SceneWarning, match="offset looks left in"):
        run_stages(config, last="chips", force=False, overwrite=False, progress=no_progress)
    (scene,) = json.loads((tmp_path / "run" / "ledger.json").read_text())["scenes"]
    assert scene["offset_check"]["state"] == "left in"
    assert scene["darkest_reflectance"]["red"] >= 0.1


def test_the_real_scene_with_the_offset_left_in_is_warned_of(shared_data: Path, tmp_path: Path) -> None:
    from pipeline.scenes.ledger import source_ledger

    scene = shared_data / "rstoolbox_sen2" / "scene.tif"
    (source,) = sources(tmp_path, scenes=[{"path": str(scene)}], inputs={"clouds": "none"})
    with pytest.warns(SceneWarning, match="offset looks left in"):
        ledger = source_ledger(source)
    assert ledger["offset_check"]["state"] == "left in"  # type: ignore[index]
    assert read(source.on_grid(source.grid.crop(Window(0, 0, 8, 8)))).valid.any()
