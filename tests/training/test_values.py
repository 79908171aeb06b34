"""The networks of a continuous target: what they are put together from, and a value that only an encoder sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine
from scipy.ndimage import gaussian_filter1d

from pipeline.diagnostics.scoring import by_sample
from pipeline.errors import ModelWarning
from pipeline.experts.settings import Deadline
from pipeline.inference.pixels import value_layers
from pipeline.model.network import NetworkSpec, build_network
from pipeline.model.quantiles import CHANNELS
from pipeline.quantity import Quantity
from pipeline.splits.split import Part
from pipeline.training.chips import choose_chips
from pipeline.training.pixels import linear_parts, on_features, put_parts
from pipeline.training.value_fit import ValueSet, fit_values, value_set
from pipeline.workflow.job import Job
from pipeline.workflow.value_stages import measured_of, predict_samples, targets_of

SIDE, PIXEL_M = 160, 30.0


def features(count: int = 300, width: int = 15) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.normal(size=(count, 4)) @ rng.normal(size=(4, width)) + 5.0).astype(np.float32)


def test_a_network_of_parts_is_small_network_and_line() -> None:
    torch.manual_seed(0)
    x = features()
    parts = linear_parts(x, np.sin(x[:, 0].astype(float)), np.ones(len(x)))
    spec = NetworkSpec(3, CHANNELS, encoder="none", spectral_channels=12, dropout=0.0, surroundings=True)
    seen = torch.from_numpy(((x - parts.mean) @ parts.axes).astype(np.float32))[:, :, None, None]
    small = build_network(replace(spec, bands_in=seen.shape[1], surroundings=False, spectral_channels=10))
    for _ in range(30):  # batch norms get statistics of their own
        on_features(small.train(), seen)
    torch.nn.init.normal_(small.eval().head.weight)
    network = build_network(spec)
    put_parts(network, small, parts)
    with torch.inference_mode():
        found = on_features(network.eval(), torch.from_numpy(x)[:, :, None, None])
        expected = on_features(small, seen)
    line = torch.from_numpy((x @ parts.weight + parts.bias).astype(np.float32))[:, None]
    assert torch.allclose(found[:, :2], expected[:, :2] + line, atol=2e-3)
    assert torch.allclose(found[:, 2:], expected[:, 2:], atol=2e-3)


def test_components_have_a_variance_of_one_and_the_line_fits() -> None:
    x = features()
    parts = linear_parts(x, x @ np.arange(15.0) - 2.0, np.ones(len(x)))
    variance = np.sort(((x - parts.mean) @ parts.axes).var(0))
    assert variance[-4:] == pytest.approx(1.0, abs=1e-3)
    assert np.corrcoef(x @ parts.weight, x @ np.arange(15.0))[0, 1] > 0.999


def test_bounds_hold_the_value_between_them() -> None:
    raw = torch.randn((CHANNELS, 40, 30), generator=torch.Generator().manual_seed(1)) * 3
    value, lower, upper = value_layers(raw, np.ones((40, 30), dtype=bool), quantity=Quantity("q"))["values"]
    assert (lower <= value).all()
    assert (value <= upper).all()
    assert value == pytest.approx(raw[0].numpy())


def write_texture(folder: Path) -> Path:
    """A scene whose bands have the same mean and deviation everywhere; the value is the share of streaks along rows."""
    rng = np.random.default_rng(1)
    share = rng.random((SIDE // 16, SIDE // 16)).repeat(16, 0).repeat(16, 1)
    bands = np.empty((4, SIDE, SIDE), dtype=np.float32)
    for number in range(4):
        along, across = (gaussian_filter1d(rng.standard_normal((SIDE, SIDE)), 2, axis=axis) for axis in (1, 0))
        streaks = np.sqrt(share) * along / along.std() + np.sqrt(1 - share) * across / across.std()
        bands[number] = 0.15 + 0.05 * number + 0.03 * streaks
    transform = Affine(PIXEL_M, 0, 500_000, 0, -PIXEL_M, 5_200_000)
    with rasterio.open(folder / "scene.tif", "w", driver="GTiff", dtype="float32", count=4, height=SIDE, width=SIDE,
                       crs="EPSG:32633", transform=transform) as target:  # fmt: skip
        target.write(bands)
        for number, name in enumerate(("red", "nir", "green", "blue"), 1):
            target.set_band_description(number, name)
    row, col = rng.integers(0, SIDE, (2, 240))
    points = gpd.points_from_xy(500_000 + PIXEL_M * (col + 0.5), 5_200_000 - PIXEL_M * (row + 0.5))
    columns = {"along": share[row, col], "plot": row // 16 * 16 + col // 16}
    gpd.GeoDataFrame(columns, geometry=points, crs="EPSG:32633").to_file(folder / "plots.gpkg")
    config = {
        "version": 2, "name": "streaks", "output": str(folder / "run"),
        "scenes": [{"path": str(folder / "scene.tif"), "id": "scene"}],
        "labels": {"kind": "value", "path": str(folder / "plots.gpkg"), "field": "along",
                   "value": {"range": [0, 1], "group": "plot"}},
        "split": {"block_m": 960, "buffer_m": 0}, "chips": {"size_px": 16, "labelled": 60, "unlabelled": 20},
        "training": {"experts": {"trees": 10, "soft_pixels": 2000}, "pixels": {"steps": 60, "batch": 256}},
    }  # fmt: skip
    path = folder / "streaks.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def learned(job: Job) -> ValueSet:
    scenes, config = job.training_scenes, job.config
    index = choose_chips({"scene": scenes[0].pixels}, settings=config.chips, split=job.split, scheme=job.scheme)
    return value_set(scenes, job.split, targets_of(job, scenes), index=index, settings=config.training)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job.load(write_texture(tmp_path_factory.mktemp("streaks")))


def test_a_value_of_texture_is_learned_from_an_encoder(job: Job) -> None:
    given = learned(job)
    assert given.frozen is not None
    mixture = given.mixture(job.config.training)
    bundle = fit_values(given, settings=job.config.training, mixture=mixture).bundle
    note = bundle.provenance["context"]
    assert bundle.shares[1] == note["share"] > 0.5
    assert f"share {note['share']:.2f}, gained +" in note["line"]
    tested = [replace(job.training_scenes[0], pixels=job.split.pixels(job.pixels[0], Part.TEST))]
    test = given.rows_of(tested)
    truth = measured_of(job.labels.frame, test)
    value, lower, upper = predict_samples(bundle, tested, test).T
    assert ((value - truth) ** 2).mean() < 0.8 * ((truth - truth.mean()) ** 2).mean()
    assert ((lower <= truth) & (truth <= upper)).mean() > 0.75
    # What the network with the encoder gives of the samples is what the teacher gives.
    quantity, ridge = given.targets.quantity, mixture.parts()[1]
    expected = by_sample(test.polygon, quantity.inverse(ridge.predict(test.places.beside_columns)))
    alone = predict_samples(replace(bundle, shares=(0.0, 1.0)), tested, test)[:, 0]
    assert np.abs(alone - expected).max() < 0.02


def test_an_encoder_that_is_not_done_in_time_is_left_out(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Deadline(0.0)
    monkeypatch.setattr(Deadline, "after", classmethod(lambda *_: gone))
    given = learned(job)
    assert given.frozen is None
    assert given.table.places.columns is None
    with pytest.warns(ModelWarning, match="features of the pretrained encoder, teachers"):
        bundle = fit_values(given, settings=job.config.training).bundle
    assert len(bundle.members) == 1
    assert "time_limit_s ended first" in bundle.provenance["context"]["line"]


def test_without_weights_no_encoder_is_looked_at(job: Job) -> None:
    without = Job.load(job.path, changes=["training.context.weights=none"])
    given = learned(without)
    assert given.frozen is None
    bundle = fit_values(given, settings=without.config.training).bundle
    assert len(bundle.members) == 1
    assert bundle.provenance["context"]["line"] == "no pretrained encoder: training.context.weights is none"
