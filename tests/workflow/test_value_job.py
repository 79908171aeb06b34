"""A continuous target from the configuration to the map: check, run, products, figures, and what is refused."""

from __future__ import annotations

import csv
import json
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import geopandas as gpd
import morecantile
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
import yaml
from affine import Affine
from pydantic import ValidationError
from rasterio.crs import CRS

from pipeline.accuracy.settings import ReferenceSettings
from pipeline.config import load_config
from pipeline.errors import ConfigError, LabelError, LabelWarning, OutputError, SceneError, SceneWarning
from pipeline.grid import Grid
from pipeline.labels.settings import LabelSettings
from pipeline.labels.values import burn_values, is_continuous, read_values, warn_shared
from pipeline.model.bundle import load_bundle
from pipeline.model.spec import SURROUNDINGS_REACH_PX
from pipeline.model.surroundings import surroundings
from pipeline.scenes.stack import series_layer
from pipeline.splits.settings import CrossvalSettings
from pipeline.splits.split import Part
from pipeline.view.answers import BYTES, Answers
from pipeline.view.tiles import MOST_BYTE, tile_grid
from pipeline.workflow.accuracy import assess_against_reference, zonal_of
from pipeline.workflow.check import check_job
from pipeline.workflow.costs import StageCost, estimate_stages, job_encoder
from pipeline.workflow.crossval import cross_validate_job
from pipeline.workflow.init import write_config
from pipeline.workflow.job import Job
from pipeline.workflow.labels_audit import audit_labels
from pipeline.workflow.predict import predict_maps
from pipeline.workflow.stages import run_stages
from pipeline.workflow.value_crossval import cross_validate_values
from pipeline.workflow.view import gather_maps

SIDE, PIXEL_M = 120, 30.0


def estimates(job: Job) -> tuple[StageCost, ...]:
    """What the stages of a job take, with the encoder that it gets."""
    return estimate_stages(job, job_encoder(job))


def silent(what: str, done: int, total: int) -> None:
    """No terminal."""


def truth(bands: np.ndarray) -> np.ndarray:
    """The planted relation: biomass of two reflectances, float32 [row, col]."""
    return np.maximum(200.0 * (bands[1] - 0.6 * bands[0]) + 20.0, 0.0)


def write_case(folder: Path, *, samples: int = 150, seed: int = 1) -> Path:
    """A scene of four bands, points with a biomass, and a configuration; gives the configuration."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((4, SIDE // 8, SIDE // 8)).repeat(8, 1).repeat(8, 2)
    bands = (0.1 + 0.3 * coarse + 0.02 * rng.standard_normal(coarse.shape)).astype(np.float32)
    transform = Affine(PIXEL_M, 0, 500_000, 0, -PIXEL_M, 5_200_000)
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "float32", "count": 4, "height": SIDE, "width": SIDE,
                               "crs": "EPSG:32633", "transform": transform, "nodata": -1.0}  # fmt: skip
    hole = bands.copy()
    hole[:, :10, :10] = -1.0
    with rasterio.open(folder / "scene.tif", "w", **profile) as target:
        target.write(hole)
        for number, name in enumerate(("red", "nir", "green", "blue"), 1):
            target.set_band_description(number, name)
    row, col = rng.integers(0, SIDE, (2, samples))
    value = truth(bands)[row, col] + rng.normal(0, 2.0, samples)
    points = gpd.points_from_xy(500_000 + PIXEL_M * (col + 0.5), 5_200_000 - PIXEL_M * (row + 0.5))
    frame = gpd.GeoDataFrame({"biomass": np.maximum(value, 0), "plot": row // 30 * 4 + col // 30}, geometry=points,
                             crs="EPSG:32633")  # fmt: skip
    frame.to_file(folder / "plots.gpkg")
    config = {
        "version": 2, "name": "biomass", "output": str(folder / "run"),
        "scenes": [{"path": str(folder / "scene.tif"), "id": "scene"}],
        "labels": {"kind": "value", "path": str(folder / "plots.gpkg"), "field": "biomass",
                   "value": {"unit": "t/ha", "range": [0, None], "group": "plot"}},
        "split": {"block_m": 900, "buffer_m": 0}, "chips": {"size_px": 16, "labelled": 60, "unlabelled": 30},
        "training": {"experts": {"trees": 30, "soft_pixels": 3000}, "pixels": {"steps": 250, "batch": 256}},
        "map": {"applicability": True}, "assessment": {"forest_trees": 50},
    }  # fmt: skip
    path = folder / "biomass.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that has been run; gives its configuration."""
    config = write_case(tmp_path_factory.mktemp("values"))
    run_stages(config, last="report", force=False, overwrite=False, progress=silent)
    return config


def test_run_finds_the_planted_relation(job: Path) -> None:
    accuracy = json.loads((job.parent / "run" / "accuracy.json").read_text())
    methods = {item["method"]: item for item in accuracy["baselines"]}
    assert accuracy["r2"] > 0.8
    assert accuracy["r2"] > methods["mean"]["r2"] + 0.5
    assert accuracy["rmse"] < methods["linear on the best band"]["rmse"]
    assert accuracy["coverage"] > 0.7


def test_map_is_float32_with_unit_bounds_and_nodata(job: Path) -> None:
    with rasterio.open(job.parent / "run" / "maps" / "scene_value.tif") as dataset:
        assert dataset.dtypes == ("float32",) * 3
        assert dataset.units == ("t/ha",) * 3
        assert dataset.descriptions[0] == "biomass (t/ha)"
        value, lower, upper = dataset.read(masked=True)
    assert value.mask[:10, :10].all()
    assert not value.mask[10:].any()
    assert (lower <= upper).all()
    assert value.min() >= 0
    with rasterio.open(job.parent / "scene.tif") as scene:
        expected = truth(scene.read())
    error = np.ma.array(value - expected, mask=value.mask)
    assert np.sqrt((error**2).mean()) < 0.35 * expected[10:].std()


def test_same_network_gives_samples_and_map_the_same_values(job: Path) -> None:
    frame = gpd.read_file(job.parent / "plots.gpkg")
    with (job.parent / "run" / "samples.csv").open() as file:
        rows = {int(row["sample"]): float(row["network"]) for row in csv.DictReader(file)}
    with rasterio.open(job.parent / "run" / "maps" / "scene_value.tif") as dataset:
        at = frame.geometry.iloc[[sample - 1 for sample in rows]]
        mapped = [value[0] for value in dataset.sample(zip(at.x, at.y, strict=True), indexes=1)]
    assert np.allclose(mapped, list(rows.values()), rtol=1e-3, atol=1e-3)


def test_model_file_keeps_what_is_measured(job: Path) -> None:
    quantity = load_bundle(job.parent / "run" / "model" / "model.safetensors").quantity
    assert quantity is not None
    assert (quantity.name, quantity.unit, quantity.low) == ("biomass", "t/ha", 0.0)


def test_run_writes_project_report_and_applicability(job: Path) -> None:
    run = job.parent / "run"
    for name in ("biomass.qgz", "report.html", "collection.json", "maps/scene_aoa.tif", "maps/scene_value.qml",
                 "figures/scatter.png", "figures/residuals.png"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    assert "singlebandpseudocolor" in (run / "maps" / "scene_value.qml").read_text()


def test_run_again_changes_nothing(job: Path) -> None:
    outcome = run_stages(job, last="report", force=False, overwrite=False, progress=silent)
    assert {row[1] for row in outcome.tables[0].rows} == {"unchanged"}
    assert outcome.written[0].name == "scene_value.tif"


def test_check_tells_samples_and_cost(job: Path) -> None:
    outcome = check_job(job, progress=silent)
    assert not outcome.failed
    assert outcome.data["labels"]["polygons"] == 150
    assert any("samples per part: groups of plot kept together, no blocks" in table.title for table in outcome.tables)
    training = str(outcome.data["training"])
    assert "resnet18 pretrained on" in training
    assert "frozen (ridge regression, share as held-out samples say)" in training
    run = json.loads((job.parent / "run" / "run.json").read_text())["stages"]
    for stage in outcome.data["estimates"]:
        assert not stage["limited"]
        assert stage["seconds"] < 5 * run[stage["stage"]]["seconds"] + 30


def test_buffer_of_samples_is_what_their_features_reach(tmp_path: Path) -> None:
    path = write_case(tmp_path)
    given = yaml.safe_load(path.read_text())
    del given["split"]["buffer_m"], given["labels"]["value"]["group"]
    path.write_text(yaml.safe_dump(given))
    job = Job.load(path)
    reach = round(job.buffer_m / PIXEL_M)
    job.check_leakage()
    parts = {part: job.split.pixels(job.pixels[0], part) for part in (Part.TRAIN, Part.TEST)}
    rows, cols = (
        np.abs(getattr(parts[Part.TEST], axis)[:, None] - getattr(parts[Part.TRAIN], axis)) for axis in ("row", "col")
    )
    assert np.maximum(rows, cols).min() > reach
    # Truth: what a value changes of the features of others, of a scene that is 0 but for one pixel.
    x = torch.zeros(1, 1, 41, 41)
    x[..., 20, 20] = 1.0
    seen = (surroundings(x) != surroundings(torch.zeros_like(x)))[0].any(0).nonzero() - 20
    assert int(seen.abs().max()) == reach


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # affine 3, of rasterio and rio-tiler
def test_the_viewer_shows_values_with_their_bounds(job: Path) -> None:
    (viewed,) = gather_maps([job.parent / "run"])
    value, lower, upper = (layer for layer in viewed.layers if layer.scaled)
    assert (value.label, value.unit, lower.label, upper.label) == ("biomass", "t/ha", "5 % quantile", "95 % quantile")
    assert (value.minimum, value.maximum) == (upper.minimum, upper.maximum)
    with rasterio.open(value.path) as dataset:
        place, wanted = dataset.xy(60, 70), dataset.read(window=((60, 61), (70, 71)))[:, 0, 0]
        lon, lat = rasterio.warp.transform(dataset.crs, "EPSG:4326", *([part] for part in place))
    answers = Answers([viewed], title="")
    found = {item["id"]: item["value"] for item in answers.point(0, lon[0], lat[0])["values"]}
    assert [found[f"value-{band}"] for band in (1, 2, 3)] == pytest.approx(wanted.tolist())
    kind, tile = answers.tile(0, "value-1", tile_grid(22, *tile_at(lon[0], lat[0], zoom=22)))
    answers.close()
    share = (wanted[0] - value.minimum) / (value.maximum - value.minimum)
    assert kind == BYTES
    assert set(tile) == {round(MOST_BYTE * min(max(share, 0), 1))}


def tile_at(lon: float, lat: float, *, zoom: int) -> tuple[int, int]:
    """Column and row of the tile that holds a place."""
    found = morecantile.tms.get("WebMercatorQuad").tile(lon, lat, zoom)
    return found.x, found.y


def test_crossval_by_group_keeps_groups_together(job: Path) -> None:
    settings = CrossvalSettings.model_validate({"folds": 3, "by": "plot", "methods": ["forest"]})
    methods = cross_validate_job(job, settings, progress=silent).data["methods"]
    assert methods["mean"]["samples"] >= 148  # one or two lie on nodata
    assert methods["mixture of teachers"]["r2"] > methods["mean"]["r2"] + 0.5
    assert 0.75 < methods["mixture of teachers"]["coverage"] <= 1.0


def test_crossval_refuses_folds_of_rows(job: Path) -> None:
    with pytest.raises(ConfigError, match="leak"):
        cross_validate_job(job, CrossvalSettings.model_validate({"by": "polygons"}), progress=silent)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"biomass": "much"}, "field 'biomass' has text where numbers are needed"),
        ({"biomass": 3.0}, "'biomass' is the same in every sample"),
        ({"biomass": -5.0}, "lie outside the range"),
    ],
)
def test_bad_values_are_refused_in_one_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    config = write_case(tmp_path)
    frame = gpd.read_file(tmp_path / "plots.gpkg")
    rows = slice(0, 4) if told != "'biomass' is the same in every sample" else slice(None)
    column = frame["biomass"].astype(object)
    column.iloc[rows] = change["biomass"]
    frame["biomass"] = column if isinstance(change["biomass"], str) else column.astype(float)
    if isinstance(change["biomass"], str):
        frame["biomass"] = frame["biomass"].astype(str)
    frame.to_file(tmp_path / "plots.gpkg")
    with pytest.raises(LabelError, match=told) as caught:
        read_values(load_config(config).labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["head=chip", "experts.enabled=false", "pixels.enabled=false", "context.steps=10", "context.lr=0.1",
     "context.frozen=false"],
)  # fmt: skip
def test_keys_of_classes_are_refused_for_values(job: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"training.{key.partition('=')[0]}.* a continuous target"):
        load_config(job, changes=[f"training.{key}"])


def test_disk_of_a_map_of_values_is_that_of_three_floats(job: Path) -> None:
    found = next(item for item in estimates(Job.load(job)) if item.stage == "predict")
    assert found.disk_bytes > 13 * SIDE**2


def test_three_samples_are_too_few(tmp_path: Path) -> None:
    config = write_case(tmp_path)
    gpd.read_file(tmp_path / "plots.gpkg").iloc[:3].to_file(tmp_path / "plots.gpkg")
    with pytest.raises(LabelError, match="too few samples"):
        read_values(load_config(config).labels)


def test_init_proposes_kind_range_and_group(job: Path, tmp_path: Path) -> None:
    output = tmp_path / "config.yaml"
    outcome = write_config([str(job.parent / "scene.tif")], labels=job.parent / "plots.gpkg", field="biomass",
                           layer=None, output=output, overwrite=False)  # fmt: skip
    config = load_config(output)
    assert outcome.data["kind"] == config.labels.kind == "value"
    assert config.labels.value.range == (0.0, None)
    assert config.labels.value.group == "plot"
    assert config.split.buffer_m == SURROUNDINGS_REACH_PX * PIXEL_M


def test_zonal_means_are_those_of_the_pixels(job: Path, tmp_path: Path) -> None:
    pytest.importorskip("exactextract")
    left, top = 500_000 + 20 * PIXEL_M, 5_200_000 - 20 * PIXEL_M
    box = shapely.box(left, top - 10 * PIXEL_M, left + 15 * PIXEL_M, top)
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[box], crs="EPSG:32633").to_file(tmp_path / "zones.gpkg")
    path = job.parent / "run" / "maps" / "scene_value.tif"
    zonal_of(path, tmp_path / "zones.gpkg", layer=None, output=tmp_path / "out.csv", overwrite=False)
    with (tmp_path / "out.csv").open() as file:
        row = next(csv.DictReader(file))
    with rasterio.open(path) as dataset:
        expected = dataset.read()[:, 20:30, 20:35].mean((1, 2))
    found = [float(row[name]) for name in ("value_mean", "lower_mean", "upper_mean")]
    assert np.allclose(found, expected, rtol=1e-4)
    assert float(row["covered"]) == pytest.approx(1.0)


def test_assess_of_a_sample_gives_the_mean_with_its_interval(job: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    row, col = rng.integers(12, SIDE, (2, 80))
    with rasterio.open(job.parent / "scene.tif") as scene:
        real = truth(scene.read())
    at = gpd.points_from_xy(500_000 + PIXEL_M * (col + 0.5), 5_200_000 - PIXEL_M * (row + 0.5))
    gpd.GeoDataFrame({"measured": real[row, col]}, geometry=at, crs="EPSG:32633").to_file(tmp_path / "sample.gpkg")
    settings = ReferenceSettings(reference=tmp_path / "sample.gpkg", field="measured", design="simple random")
    path = job.parent / "run" / "maps" / "scene_value.tif"
    found = assess_against_reference(path, settings, scheme=None, output=None, overwrite=False).data["mean"]
    assert found["regression"]["low"] < real[10:].mean() < found["regression"]["high"]
    assert found["gain"] > 2


def test_series_layer_is_the_mean_of_the_days_before(tmp_path: Path) -> None:
    path = tmp_path / "rain.tif"
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "float32", "count": 4, "height": 2, "width": 2,
                               "crs": "EPSG:32633", "transform": Affine(60, 0, 0, 0, -60, 0)}  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        for number in range(1, 5):
            target.write(np.full((2, 2), number, dtype=np.float32), number)
            target.set_band_description(number, f"2024-06-0{number}")
    layer = series_layer(str(path), name="rain", days=2, day=date(2024, 6, 4))
    assert [source.index for source in layer.scene.bands] == [2, 3]
    with pytest.raises(SceneError, match="no band of the days before 2024-07-01"):
        series_layer(str(path), name="rain", days=2, day=date(2024, 7, 1))
    with rasterio.open(path, "r+") as target:
        target.set_band_description(4, "2024-06-09")
    with pytest.warns(SceneWarning, match="gaps, after 2024-06-03 nothing for 6 days, usually every 1 day"):
        series_layer(str(path), name="rain", days=2, day=date(2024, 6, 4))


def write_samples(path: Path, **columns: Any) -> Path:
    """Points with attributes."""
    count = len(next(iter(columns.values())))
    at = gpd.points_from_xy(500_000 + PIXEL_M * (np.arange(count) + 0.5), np.full(count, 5_200_000 - PIXEL_M * 1.5))
    gpd.GeoDataFrame(columns, geometry=at, crs="EPSG:32633").to_file(path)
    return path


def settings_of(path: Path, **value: Any) -> LabelSettings:
    """Of values in the field agb."""
    return LabelSettings.model_validate({"kind": "value", "path": str(path), "field": "agb", "value": value})


def test_dates_written_as_numbers_are_days(tmp_path: Path) -> None:
    values = np.arange(12.0)
    path = write_samples(tmp_path / "a.gpkg", agb=values, day=[20240601] * 12)
    days = read_values(settings_of(path, date="day"))[0].frame["date"]
    assert (days == np.datetime64("2024-06-01")).all()
    for day in (3.5, 7, 20241399):
        path = write_samples(tmp_path / f"{day}.gpkg", agb=values, day=[day] * 12)
        with pytest.raises(LabelError, match="dates in 'day' are none"):
            read_values(settings_of(path, date="day"))


def test_values_that_none_can_be_are_refused(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "a.gpkg", agb=[*range(11), 1e300])
    with pytest.raises(LabelError, match="none can be"):
        read_values(settings_of(path))


def test_samples_of_nodata_are_refused_unless_in_the_range(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "a.gpkg", agb=[*range(11), -9999])
    with pytest.raises(LabelError, match="1 values of 'agb' stand for no data; got -9999"):
        read_values(settings_of(path))
    assert len(read_values(settings_of(path, range=[-10_000, None]))[0]) == 12


def test_infinite_values_are_refused_not_left_out(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "a.gpkg", agb=[*range(11), np.inf, -np.inf, np.nan])
    with pytest.raises(LabelError, match="2 values of 'agb' are infinite; got inf"):
        read_values(settings_of(path))


def test_limits_of_tiny_values_are_told_apart(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "a.gpkg", agb=np.arange(1, 101) * 1e-9)
    labels, quantity = read_values(settings_of(path, unit="kg/m3"))
    limits = [float(name.partition(" to ")[0]) for name in labels.scheme.names if " to " in name]
    assert limits == pytest.approx(quantity.edges[:-1], rel=0.05)


def test_init_takes_few_values_as_measured_where_told_so(tmp_path: Path) -> None:
    write_case(tmp_path)
    frame = gpd.read_file(tmp_path / "plots.gpkg")
    frame.assign(biomass=(frame["biomass"] / 10).round() + 0.5).to_file(tmp_path / "plots.gpkg")
    given = {"labels": tmp_path / "plots.gpkg", "field": "biomass", "layer": None, "overwrite": True}
    found = write_config([str(tmp_path / "scene.tif")], output=tmp_path / "c.yaml", kind="value", **given)
    assert found.data["samples"] == len(frame)
    with pytest.warns(LabelWarning) as said:
        write_config([str(tmp_path / "scene.tif")], output=tmp_path / "c.yaml", **given)
    assert any("taken as classes; if it measures something, set labels.kind to value" in str(w.message) for w in said)


def test_classes_of_a_continuous_target_are_refused(job: Path, tmp_path: Path) -> None:
    told = r"classes: a continuous target \(labels.kind: value\) has neither classes nor objects"
    with pytest.raises(ConfigError, match=told.replace("classes:", "map.objects.classes:", 1)):
        load_config(job, changes=["map.objects.classes=[a]"])
    data = yaml.safe_load(job.read_text()) | {"classes": [{"code": 1, "name": "a", "color": "#000000"}]}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=told):
        load_config(tmp_path / "both.yaml")


@pytest.mark.parametrize("value", [{"covariates": ["agb"]}, {"range": [float("nan"), None]}])
def test_the_target_is_no_covariate_and_limits_are_numbers(value: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        settings_of(tmp_path / "a.gpkg", **value)


def test_init_takes_a_raster_of_values_without_a_field(tmp_path: Path) -> None:
    write_case(tmp_path)
    with rasterio.open(tmp_path / "scene.tif") as scene:
        values, profile = truth(scene.read()), scene.profile | {"count": 1}
    for kind, dtype in ((None, "float32"), ("value", "int16")):
        with rasterio.open(tmp_path / "height_m.tif", "w", **(profile | {"dtype": dtype})) as target:
            target.write(values.astype(dtype), 1)
        given: dict[str, Any] = {
            "labels": tmp_path / "height_m.tif",
            "layer": None,
            "output": tmp_path / "c.yaml",
            "overwrite": True,
        }
        write_config([str(tmp_path / "scene.tif")], field="", kind=kind, **given)
        labels = load_config(tmp_path / "c.yaml").labels
        assert (labels.kind, labels.field, labels.value.unit) == ("value", "height_m", "m")
        samples, quantity = read_values(labels)
        assert len(samples) == labels.value.raster_samples
        assert quantity.name == "height_m"
    with pytest.raises(ConfigError, match=r"height_m.tif: init reads no classes from a raster.*--kind value"):
        write_config([str(tmp_path / "scene.tif")], field="any", **given)


@pytest.mark.parametrize("odd", ["n/a", "3,5"])
def test_init_refuses_measurements_as_text(odd: str, tmp_path: Path) -> None:
    values = [odd, *(f"{value:.2f}" for value in np.arange(60) + 0.25)]
    path = write_samples(tmp_path / "a.gpkg", agb=values)
    with pytest.raises(LabelError, match="numbers as text"):
        is_continuous(path, field="agb", layer=None, encoding=None)


def _changed(folder: Path, **more: Any) -> Path:
    """A job whose samples have a date and an elevation, with other keys."""
    path = write_case(folder)
    frame = gpd.read_file(folder / "plots.gpkg")
    frame["day"] = np.where(np.arange(len(frame)) % 2, "2024-06-03", "2024-06-04")
    frame["elevation"] = np.sqrt(frame["biomass"])
    frame.to_file(folder / "plots.gpkg")
    config = yaml.safe_load(path.read_text())
    for section, keys in more.items():
        config[section] = config.get(section, {}) | keys if isinstance(keys, dict) else keys
    path.write_text(yaml.safe_dump(config))
    return path


def test_samples_without_a_scene_have_blocks_too(tmp_path: Path) -> None:
    labels = {"kind": "value", "path": str(tmp_path / "plots.gpkg"), "field": "biomass",
              "value": {"covariates": ["elevation"]}}  # fmt: skip
    path = _changed(tmp_path, scenes=[], labels=labels, training={"experts": {"trees": 5}})
    settings = CrossvalSettings.model_validate({"folds": 2, "methods": ["forest"]})
    data = cross_validate_job(path, settings, progress=silent).data
    assert data["split"]["block_m"] == 900
    assert data["methods"]["mean"]["samples"] == 150
    _changed(tmp_path, scenes=[], labels=labels, split={"block_m": 1200}, training={"experts": {"trees": 5}})
    with pytest.raises(OutputError, match="figures of other folds or settings are there"):
        cross_validate_job(path, settings, progress=silent)


def stations(folder: Path, **value: Any) -> Path:
    """A job of samples with an elevation and no scene."""
    labels = {"kind": "value", "path": str(folder / "plots.gpkg"), "field": "biomass",
              "value": {"covariates": ["elevation"]} | value}  # fmt: skip
    return _changed(folder, scenes=[], labels=labels, training={"experts": {"trees": 5}})


def test_check_tells_the_folds_of_samples_without_a_scene(tmp_path: Path) -> None:
    outcome = check_job(stations(tmp_path, group="plot"), progress=silent)
    assert not outcome.failed
    assert outcome.summary.endswith("no error found; no scene: crossval gives figures, no map can be made")
    assert outcome.hint.endswith("biomass.yaml --by plot")
    table = outcome.tables[-1]
    assert table.title == "samples per fold of crossval: 16 groups of plot kept together"
    assert sum(int(row[1]) for row in table.rows) == 150
    assert all(int(row[1]) + int(row[2]) == 150 for row in table.rows)
    blocks = check_job(stations(tmp_path, group=None), progress=silent)
    assert blocks.tables[-1].title == "samples per fold of crossval: blocks of 900 m, 0 m between parts"
    assert blocks.hint.endswith("biomass.yaml")
    gpd.read_file(tmp_path / "plots.gpkg").assign(biomass=-9999.0).to_file(tmp_path / "plots.gpkg")
    assert len(check_job(stations(tmp_path, range=[-1, 0]), progress=silent).failed) == 1


@pytest.mark.parametrize("last", ["chips", "train", "predict", "report"])
def test_samples_without_a_scene_make_no_map(tmp_path: Path, last: str) -> None:
    path = stations(tmp_path)
    with pytest.raises(ConfigError, match=r"no scene to learn from or to map; .*landcover check and crossval take"):
        run_stages(path, last=last, force=False, overwrite=False, progress=silent)
    assert not (tmp_path / "run").exists()


def test_attributes_that_no_raster_has_are_said_to_be_left_out(tmp_path: Path) -> None:
    path = _changed(tmp_path, labels={"value": {"covariates": ["elevation"]}})
    told = r"covariates \(elevation\): used by crossval alone, .*; the map is made without them"
    with pytest.warns(LabelWarning, match=told):
        check_job(path, progress=silent)
    with pytest.warns(LabelWarning, match=told):
        run_stages(path, last="chips", force=False, overwrite=False, progress=silent)


def test_samples_of_several_files_are_joined(tmp_path: Path) -> None:
    path = _changed(tmp_path)
    gpd.read_file(tmp_path / "plots.gpkg").iloc[:20].to_crs(4326).to_file(tmp_path / "more.gpkg")
    job = Job.load(path, changes=[f"labels.also=[{tmp_path / 'more.gpkg'}]"])
    assert len(job.labels) == 170
    assert job.input_hash != Job.load(path).input_hash


def rain_of_days(path: Path, days: int = 5) -> None:
    """A series whose band of day n, June 2024, is n everywhere."""
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "float32", "count": days, "height": 2, "width": 2,
                               "transform": Affine(1800, 0, 500_000, 0, -1800, 5_200_000),
                               "crs": "EPSG:32633"}  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        for number in range(1, days + 1):
            target.write(np.full((2, 2), number, dtype=np.float32), number)
            target.set_band_description(number, f"2024-06-{number:02}")


def test_a_day_without_samples_is_mapped(tmp_path: Path) -> None:
    rain_of_days(tmp_path / "rain.tif")
    labels = {"value": {"date": "day", "mapped": ["2024-06-06"]}}
    inputs = {"layers": [{"path": str(tmp_path / "rain.tif"), "kind": "series", "days": 1}]}
    job = Job.load(_changed(tmp_path, labels=labels, inputs=inputs))
    assert [source.id for source in job.mapped] == ["scene_2024-06-06"]
    assert [len(pixels) for pixels in job.pixels] == [75, 75, 0]


def test_maps_follow_the_weather_of_their_days(tmp_path: Path) -> None:
    rain_of_days(tmp_path / "rain.tif")
    labels = {"value": {"date": "day", "mapped": ["2024-06-02", "2024-06-06"]}}
    inputs = {"layers": [{"path": str(tmp_path / "rain.tif"), "kind": "series", "days": 1}]}
    path = _changed(tmp_path, labels=labels, inputs=inputs, map={"applicability": False})
    frame = gpd.read_file(tmp_path / "plots.gpkg")
    rain = 1 + np.arange(len(frame)) % 5  # mm on the day before
    frame["day"], frame["biomass"] = [f"2024-06-{1 + mm:02}" for mm in rain], frame["biomass"] + 15.0 * rain
    frame.to_file(tmp_path / "plots.gpkg")
    run_stages(path, last="predict", force=False, overwrite=False, progress=silent)
    dry, wet = (read_map(tmp_path / "run" / "maps" / f"scene_2024-06-{day}_value.tif") for day in ("02", "06"))
    assert np.nanmean(wet - dry) == pytest.approx(15.0 * (5 - 1), rel=0.2)


def read_map(path: Path) -> np.ndarray:
    """Values float32 [row, col], NaN where there are none."""
    with rasterio.open(path) as source:
        return source.read(1, masked=True).filled(np.nan)


def test_samples_that_share_a_pixel_are_said(tmp_path: Path) -> None:
    path = _changed(tmp_path)
    frame = gpd.read_file(tmp_path / "plots.gpkg").drop(columns="day")
    pd.concat([frame, frame.iloc[:5]]).to_file(tmp_path / "plots.gpkg")
    with pytest.warns(LabelWarning, match="samples share a pixel with another"):
        check_job(path, progress=silent)


def test_samples_of_one_date_that_share_a_pixel_are_said(tmp_path: Path) -> None:
    grid = Grid(CRS.from_epsg(32633), Affine(PIXEL_M, 0, 500_000, 0, -PIXEL_M, 5_200_000), 3, 20)
    path = write_samples(tmp_path / "a.gpkg", agb=np.arange(12.0), day=["2024-06-01"] * 12)
    twice = pd.concat([gpd.read_file(path), gpd.read_file(path).iloc[:5]], ignore_index=True)
    for day, told in (("2024-06-01", "10 samples share a pixel with another on the same date"), ("2024-06-02", "")):
        twice.loc[12:, "day"] = day
        twice.to_file(path)
        labels = read_values(settings_of(path, date="day"))[0]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            warn_shared(labels, [burn_values(labels, grid)])
        assert [told in str(item.message) for item in said] == [True] * bool(told)


@pytest.mark.parametrize("layer", ["probabilities", "entropy", "margin", "sets"])
def test_layers_of_classes_are_refused_for_values(job: Path, layer: str) -> None:
    with pytest.raises(ConfigError, match=f"map.{layer}: a continuous target has no probabilities"):
        load_config(job, changes=[f"map.{layer}={0.9 if layer == 'sets' else 'true'}"])


@pytest.mark.parametrize("change", ["map.entropy=true", "map.sets=0.9", "map.objects.classes=[a]"])
def test_a_model_of_values_has_no_layers_of_classes(job: Path, tmp_path: Path, change: str) -> None:
    model, scene = job.parent / "run" / "model" / "model.safetensors", job.parent / "scene.tif"
    with pytest.raises(ConfigError, match="of a continuous target"):
        predict_maps(
            None, model=model, scenes=[str(scene)], output=tmp_path / "out", changes=[change], force=False,
            overwrite=False, progress=silent,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_audits_are_of_classes(job: Path) -> None:
    with pytest.raises(ConfigError, match="labels audit is of classes"):
        audit_labels(job, count=3, seed=0, output=None, overwrite=True, progress=silent)


def test_groups_of_one_sample_do_not_replace_blocks(tmp_path: Path) -> None:
    path = write_case(tmp_path)
    several = Job.load(path)
    assert several.split_by_groups
    assert several.split.block_m == 0
    frame = gpd.read_file(tmp_path / "plots.gpkg")
    frame["plot"] = [f"p{max(number, 1)}" for number in range(len(frame))]  # the first two are one plot
    frame.to_file(tmp_path / "plots.gpkg")
    with pytest.warns(LabelWarning, match="plot has 150 samples in 149 groups, so parts are made of blocks"):
        single = Job.load(path).split
    assert single.block_m == 900
    assert single.part[1] == single.part[2]
    outcome = write_config([str(tmp_path / "scene.tif")], labels=tmp_path / "plots.gpkg", field="biomass", layer=None,
                           output=tmp_path / "config.yaml", overwrite=False)  # fmt: skip
    assert "group" not in outcome.data["value"]


def test_folds_of_groups_of_one_sample_are_warned_of(tmp_path: Path) -> None:
    path = write_case(tmp_path, samples=30)
    frame = gpd.read_file(tmp_path / "plots.gpkg")
    frame.assign(plot=np.arange(30)).to_file(tmp_path / "plots.gpkg")
    job = Job.load(path, changes=["training.experts.trees=2"])
    settings = CrossvalSettings.model_validate({"folds": 2, "by": "plot", "methods": ["forest"]})
    with pytest.warns(LabelWarning, match="neighbours lie on both sides of these folds; use --by blocks"):
        cross_validate_values(job, settings, output=None, force=False, overwrite=False, progress=silent)


@pytest.mark.parametrize("days", [1, 2])
def test_dates_of_one_place_are_warned_of_and_no_others(tmp_path: Path, days: int) -> None:
    labels = {"kind": "value", "path": str(tmp_path / "plots.gpkg"), "field": "biomass",
              "value": {"covariates": ["elevation"], "date": "day"}}  # fmt: skip
    path = _changed(tmp_path, scenes=[], labels=labels, training={"experts": {"trees": 5}})
    frame = gpd.read_file(tmp_path / "plots.gpkg").drop_duplicates("geometry")
    count = len(frame)
    pd.concat([frame, frame.assign(day="2024-06-05")] if days > 1 else [frame]).to_file(tmp_path / "plots.gpkg")
    settings = CrossvalSettings.model_validate({"folds": 2, "methods": ["forest"]})
    if days == 1:
        cross_validate_job(path, settings, progress=silent)
        return
    with pytest.warns(LabelWarning, match=f"{2 * count} samples at {count} places on several dates: name the station"):
        cross_validate_job(path, settings, progress=silent)
