"""A model alone maps scenes it has never seen: dates, layers, scaling and mirror as the user says them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
import torch

from pipeline.cli import main
from pipeline.inference.sources import NODATA_SAID, RECIPE
from pipeline.legend import ClassScheme, LandClass
from pipeline.model.bundle import ModelBundle, TrainedOn, save_bundle
from pipeline.model.checks import histograms_of
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.scenes.settings import InputSettings
from tests.fakes.landscape import by_key
from tests.fakes.rasters import TRANSFORM, write_raster
from tests.fakes.safe import Safe, write_safe
from tests.fakes.small_world import CLASSES, reflectance, write_scene
from tests.fakes.stac_items import SIZE_M, field_of, planetary_computer_item

if TYPE_CHECKING:
    from pathlib import Path

DAYS = ("2024-04-01", "2024-06-01", "2024-08-01")
BANDS = ("blue", "green", "red", "nir")


def write_model(folder: Path, channels: tuple[str, ...], /, **changes: Any) -> Path:
    """A model of random weights that takes what the small world looks like; ``changes`` are of its inputs."""
    torch.manual_seed(0)
    spec = NetworkSpec(len(channels), 3, encoder="none", spectral_channels=8, spectral_kernels=(1,))
    about = {key: changes.pop(key) for key in ("sources", "histograms", "units") if key in changes}
    said = {NODATA_SAID: changes.pop(NODATA_SAID)} if NODATA_SAID in changes else {}
    bundle = ModelBundle(
        members=(build_network(spec).eval(),),
        scheme=ClassScheme(tuple(LandClass(i, name, "#112233") for i, name in enumerate(CLASSES, 1))),
        preprocess=Preprocess(channels, (0.15,) * len(channels), (0.1,) * len(channels)),
        value_range=((-1.0, 1.0),) * len(channels),
        units=about.pop("units", ("",) * len(channels)),
        gsd_m=10.0,
        provenance={RECIPE: InputSettings.model_validate(changes).model_dump(mode="json")} | said,
        **about,
    )
    return save_bundle(folder / "model.safetensors", bundle)


@pytest.fixture
def undated(tmp_path: Path) -> list[Path]:
    """Three dates of the small world as GeoTIFFs that do not say when they are of."""
    return [write_scene(tmp_path / f"s{number}.tif", reflectance(seed=number)) for number in range(3)]


def stacked(*names: str) -> tuple[str, ...]:
    return tuple(f"{band}_{name}" for name in names for band in ("red", "nir"))


def predict(model: Path, *scenes: Path, more: tuple[str, ...] = (), folder: str = "maps") -> int:
    given = [part for scene in scenes for part in ("--scene", str(scene))]
    engine = ("--engine", "torch", "--dtype", "float32")
    return main(["predict", "--model", str(model), *given, "-o", str(model.parent / folder), *engine, *more])


def dates(*days: str) -> tuple[str, ...]:
    return tuple(part for day in days for part in ("--date", day))


def ledger_of(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*_lc.tif")
    with rasterio.open(path) as dataset:
        return dict(json.loads(dataset.tags()["LANDCOVER_LEDGER"]))


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("landcover: error: ")]
    assert not [line for line in lines if not line.startswith("landcover: ")]
    return line.removeprefix("landcover: error: ")


def test_dates_of_undated_files_are_told_in_any_order(
    tmp_path: Path, undated: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(
        tmp_path, stacked("t1", "t2", "t3"), time="stack", stack={"naming": "order"}, bands=["red", "nir"]
    )
    assert predict(model, *undated) == 2
    assert error(capsys) == (
        f"{undated[0]}: date of acquisition unknown; give a date for every scene (acquired_utc in a configuration, "
        "--date beside --scene)"
    )
    assert predict(model, *undated, more=dates(*DAYS)) == 0
    assert ledger_of(tmp_path / "maps")["dates"] == [f"{day}T12:00:00+00:00" for day in DAYS]
    assert predict(model, *reversed(undated), more=dates(*reversed(DAYS)), folder="again") == 0
    maps = [next((tmp_path / name).glob("*_lc.tif")) for name in ("maps", "again")]
    first, second = (rasterio.open(path).read(1) for path in maps)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dates(*DAYS[:2]), "option --date; got 2; expected 3, one for each --scene"),
        (dates("June", *DAYS[1:]), "option --date; got June; expected 2024-06-01 or 2024-06-01T10:20:00Z"),
        (dates("2024-06-01T10:20:00", *DAYS[1:]), "option --date: a time without its zone"),
        (("--layer", "dem.tif"), "option --layer; got 1; expected none: the model has no layers"),
    ],
)
def test_what_is_said_wrongly_is_one_line(
    tmp_path: Path, undated: list[Path], capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    model = write_model(
        tmp_path, stacked("t1", "t2", "t3"), time="stack", stack={"naming": "order"}, bands=["red", "nir"]
    )
    assert predict(model, *undated, more=more) == 2
    assert error(capsys).startswith(message)


def test_a_model_of_stacks_by_date_says_it_fits_those_days_only(
    tmp_path: Path, undated: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path, stacked(*DAYS), time="stack", bands=["red", "nir"])
    assert predict(model, *undated, more=dates(*DAYS)) == 0
    capsys.readouterr()
    assert predict(model, *undated, more=dates("2025-04-01", *DAYS[1:]), folder="other") == 2
    assert error(capsys) == (
        "scenes of other days than the model's, whose bands are called after their dates; got 2024-06-01, 2024-08-01, "
        "2025-04-01; expected 2024-04-01, 2024-06-01, 2024-08-01; train with inputs.stack naming: order, or with "
        "regular days, to map other days and years"
    )


def test_regular_days_hold_the_values_between_the_dates(tmp_path: Path) -> None:
    """1 and 31 May are 120 and 150 days after noon of 1 January; day 136 lies in the middle, with half of each."""
    for number, value in enumerate((0.1, 0.3)):
        write_scene(
            tmp_path / f"s{number}.tif", np.full((4, 20, 20), value, np.float32) + number * reflectance(20) / 10
        )
    from pipeline.config import load_config
    from pipeline.workflow.inputs import open_sources
    from tests.fakes.small_world import write_settings

    days = ("2023-05-01", "2023-05-31")
    items = [{"path": f"s{number}.tif", "acquired_utc": f"{day}T12:00:00Z"} for number, day in enumerate(days)]
    inputs = {"time": "stack", "bands": ["red"], "stack": {"regular": [121, 136, 151]}}
    (stack,) = open_sources(load_config(write_settings(tmp_path, scenes=items, inputs=inputs)))
    with stack.open() as reader:
        raster = reader.read(stack.grid.window)
    late = 0.3 + reflectance(20)[2] / 10
    np.testing.assert_allclose(raster.band("red_doy121"), 0.1, atol=1e-6)
    np.testing.assert_allclose(raster.band("red_doy151"), late, atol=1e-6)
    np.testing.assert_allclose(raster.band("red_doy136"), (0.1 + late) / 2, atol=1e-6)


def test_a_model_of_regular_days_maps_another_year(tmp_path: Path, undated: list[Path]) -> None:
    model = write_model(
        tmp_path, stacked("doy100", "doy150"), time="stack", stack={"regular": [100, 150]}, bands=["red", "nir"]
    )
    assert predict(model, *undated, more=dates("2023-03-20", "2023-05-07", "2023-07-01")) == 0
    assert [target[:10] for target in ledger_of(tmp_path / "maps")["targets"]] == ["2023-04-10", "2023-05-30"]


def test_a_file_whose_bands_are_dates_is_mapped_by_its_dates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = write_raster(tmp_path / "series.tif", reflectance()[:3], names=("a", "b", "c"))
    model = write_model(
        tmp_path, ("ndvi_t1", "ndvi_t2", "ndvi_t3"), time="stack", stack={"naming": "order"}, bands=["ndvi"]
    )
    assert predict(model, series, more=dates(*DAYS)) == 0
    assert ledger_of(tmp_path / "maps")["dates"] == [f"{day}T12:00:00+00:00" for day in DAYS]
    capsys.readouterr()
    assert predict(model, series, more=dates(*DAYS[:2]), folder="other") == 2
    assert error(capsys) == f"{series}: number of dates; got 2; expected 3 bands"


def test_layers_of_a_model_from_another_machine_are_given_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    layers = [
        {"path": "/their/disk/dem.tif", "kind": "dem", "bands": ["elevation"]},
        {"path": "/their/disk/s1.tif", "kind": "sentinel1"},
    ]
    model = write_model(tmp_path, (*BANDS, "elevation", "vv", "vh"), bands=list(BANDS), layers=layers)
    dem = write_raster(tmp_path / "our_dem.tif", np.full((96, 96), 0.3, np.float32))
    radar = write_raster(tmp_path / "our_s1.tif", np.full((2, 96, 96), 0.9, np.float32))
    assert predict(model, scene) == 2
    assert error(capsys) == (
        "/their/disk/dem.tif: the model needs a further raster (dem) that is not there; say where it is now with "
        "--layer, one for each in this order: dem dem.tif, sentinel1 s1.tif"
    )
    assert predict(model, scene, more=("--layer", str(dem))) == 2
    assert error(capsys) == "option --layer; got 1; expected 2, in this order: dem dem.tif, sentinel1 s1.tif"
    assert predict(model, scene, more=("--layer", str(dem), "--layer", str(radar))) == 0
    assert [layer["scene"] for layer in ledger_of(tmp_path / "maps")["layers"]] == ["our_dem", "our_s1"]


def test_a_layer_that_misses_a_new_scene_is_no_silent_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    heights = np.full((96, 96), 0.3, np.float32)
    dem = write_raster(tmp_path / "dem.tif", heights, transform=TRANSFORM @ TRANSFORM.translation(1000, 0))
    layers = [{"path": str(dem), "kind": "dem", "bands": ["elevation"]}]
    model = write_model(tmp_path, (*BANDS, "elevation"), bands=list(BANDS), layers=layers)
    assert predict(model, scene) == 2
    assert "dem.tif: layer does not cover scene scene; got EPSG:32633" in error(capsys)
    write_raster(dem, heights, transform=TRANSFORM @ TRANSFORM.translation(48, 0))
    assert predict(model, scene) == 0
    assert "dem.tif: layer covers 50% of scene scene; the rest has no data" in capsys.readouterr().err
    assert ledger_of(tmp_path / "maps")["layers_without_data"] == {"dem": 0.5}


def test_counts_are_mapped_once_bands_and_scale_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = write_scene(tmp_path / "counts.tif", (reflectance() * 10_000).astype(np.uint16), names=())
    model = write_model(tmp_path, BANDS, bands=list(BANDS), units=("reflectance",) * 4)
    assert predict(model, counts) == 2
    assert "scene lacks band blue, green, red, nir of the model" in (line := error(capsys))
    assert "name the bands with --bands" in line
    assert predict(model, counts, more=("--bands", ",".join(BANDS))) == 2
    assert "times larger than those the model was trained on" in error(capsys)
    assert predict(model, counts, more=("--bands", ",".join(BANDS), "--scale", "0.0001")) == 0
    red = ledger_of(tmp_path / "maps")["bands"][2]
    assert (red["band"], red["scale"], red["unit"], red["provenance"]) == ("red", 1e-4, "reflectance", "config")


def test_fill_of_a_new_scene_is_never_mapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = reflectance()
    values[:, :, :12] = 0.9  # in all bands over a large part: outside the image
    scene = write_scene(tmp_path / "new.tif", values)
    assert predict(write_model(tmp_path, BANDS, bands=list(BANDS)), scene) == 2
    assert "looks like fill that no tag declares; got 0.9 in all bands" in error(capsys)
    said = write_model(tmp_path, BANDS, bands=list(BANDS), nodata_said=float(np.float32(0.9)))
    assert predict(said, scene) == 0
    assert "0.9 is taken for it, as in the training scenes" in capsys.readouterr().err
    with rasterio.open(tmp_path / "maps" / "new_lc.tif") as dataset:
        codes = dataset.read(1)
    assert not codes[:, :12].any()
    assert codes[:, 12:].all()


def test_fill_that_is_not_the_training_scenes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = reflectance()
    values[:, :, :12] = 0.0
    model = write_model(tmp_path, BANDS, bands=list(BANDS), nodata_said=-1.0)
    assert predict(model, write_scene(tmp_path / "new.tif", values)) == 2
    assert "got 0 in all bands" in error(capsys)
    assert predict(model, write_scene(tmp_path / "tagged.tif", values, nodata=-1.0)) == 2
    assert "--nodata 0, or --nodata -1 where these are observations" in error(capsys)


def test_a_little_fill_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = reflectance(96)
    values[:, :8, :8] = 0.0
    assert predict(write_model(tmp_path, BANDS, bands=list(BANDS)), write_scene(tmp_path / "new.tif", values)) == 0
    assert "looks like fill, and is mapped: 0 in all bands over 0.7%" in capsys.readouterr().err


def test_a_scene_that_says_nothing_of_clouds_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = (TrainedOn("sentinel-2", "L2A", "05.10", "some"),)
    model = write_model(tmp_path, BANDS, bands=list(BANDS), sources=trained)
    assert predict(model, write_scene(tmp_path / "new.tif")) == 0
    assert "no layer says where clouds are (SCL, QA_PIXEL, Fmask)" in capsys.readouterr().err
    unasked = write_model(tmp_path, BANDS, bands=list(BANDS), sources=trained, clouds="none")
    assert predict(unasked, write_scene(tmp_path / "plain.tif")) == 0
    assert "clouds" not in capsys.readouterr().err


def test_a_mirror_that_an_item_does_not_tell_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = planetary_computer_item(tmp_path, lambda name: str(tmp_path / name), name="quiet")
    (tmp_path / "item.json").write_text(json.dumps(item | {"links": []}))
    model = write_model(tmp_path, ("red", "nir"), bands=["red", "nir"])
    assert predict(model, tmp_path / "item.json") == 2
    assert "give scale and offset (--scale, --offset), or the mirror (earth-search, planetary-computer" in error(capsys)
    assert predict(model, tmp_path / "item.json", more=("--mirror", "planetary-computer")) == 0
    assert ledger_of(tmp_path / "maps")["bands"][0]["offset"] == -0.1
    assert predict(model, tmp_path / "item.json", more=("--mirror", "nasa")) == 2
    assert error(capsys).endswith(
        "key 'scene.mirror'; got 'nasa'; expected 'earth-search', 'planetary-computer' or 'copernicus'"
    )


def test_a_collection_of_items_is_as_many_dates(tmp_path: Path) -> None:
    items = [
        planetary_computer_item(tmp_path, lambda name: str(tmp_path / name), name=f"day{number}") for number in range(2)
    ]
    for number, item in enumerate(items):
        item["properties"]["datetime"] = f"2025-0{number + 3}-02T09:50:29Z"
    collection = tmp_path / "season.json"
    collection.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    model = write_model(tmp_path, stacked("t1", "t2"), time="stack", stack={"naming": "order"}, bands=["red", "nir"])
    assert predict(model, collection) == 0
    ledger = ledger_of(tmp_path / "maps")
    assert [scene["scene"] for scene in ledger["scenes"]] == ["day0", "day1"]
    assert {scene["mirror"] for scene in ledger["scenes"]} == {"planetary-computer"}


def test_what_does_not_fit_the_model_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = (TrainedOn("sentinel-2", "L2A", "05.10", "some"),)
    model = write_model(tmp_path, ("red", "nir"), bands=["red", "nir"], sources=trained, units=("reflectance",) * 2)
    top = write_safe(tmp_path, Safe(level="L1C", size_m=SIZE_M, truth=by_key))
    assert predict(model, top) == 2
    assert error(capsys) == (
        f"{top}: scene is of another product level than the model was trained on; got L1C (top-of-atmosphere); "
        "expected L2A (surface); use the same product level or train on this one"
    )
    surface = write_safe(tmp_path, Safe(size_m=SIZE_M, truth=by_key))
    assert predict(model, surface, more=("--resolution", "20")) == 2
    assert "got 20 m; expected 10 m; read it at that size (--resolution 10," in error(capsys)
    assert predict(model, surface, more=("--offset", "-3000")) == 2
    assert "times larger than those the model was trained on" in error(capsys)
    assert predict(model, surface) == 0


def test_a_shift_of_the_histograms_is_a_warning_with_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = field_of(by_key)
    stored = histograms_of([np.stack([pixels(key, 10).ravel() for key in ("B04", "B08")], axis=1).astype(np.float32)])
    model = write_model(tmp_path, ("red", "nir"), bands=["red", "nir"], histograms=stored)
    same = write_safe(tmp_path, Safe(size_m=SIZE_M, truth=by_key))
    assert predict(model, same) == 0
    assert "distributed unlike" not in capsys.readouterr().err
    darker = write_safe(tmp_path / "darker", Safe(size_m=SIZE_M, truth=lambda *at: 0.25 * by_key(*at)))
    assert predict(model, darker, folder="darker_maps") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "distributed unlike" in line]
    assert line.startswith(f"landcover: warning: {darker}: 2 of 2 bands are distributed unlike those of the training")
    assert "red median 0.0" in line
    assert "(distance 0." in line
