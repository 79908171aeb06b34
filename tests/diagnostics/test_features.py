from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from pipeline.accuracy.class_maps import read_grid
from pipeline.diagnostics.features import Features, embed, embedding_layers, explained, spread, write_features
from pipeline.errors import ConfigError, OutputError
from pipeline.maps.vectors import write_geopackage
from pipeline.model.bundle import load_bundle
from pipeline.workflow.job import Job
from tests.accuracy.maps import SCHEME, patchy, write_map


@pytest.fixture(scope="module")
def job(finished) -> Job:
    return Job.load(finished.config)


def written(job: Job, path: Path) -> Features | None:
    return write_features(path, load_bundle(job.model_path), list(zip(job.sources, job.pixels, strict=True)), seed=0)


def test_points_lie_on_their_pixels_and_know_class_and_polygon(job, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.diagnostics.features.FEATURE_PIXELS", 60)
    path = tmp_path / "features.gpkg"
    features = written(job, path)
    assert features is not None
    places = geopandas.read_file(path, layer="places")
    assert set(places.columns) >= {"id", "class", "polygon", "scene", "pca_1", "pca_2", "tsne_1", "tsne_2"}
    assert len(places) == len(features.code) == 60
    polygons = job.labels.frame.set_index("poly_id")
    for row in places.itertuples():
        assert polygons.loc[row.polygon, "geometry"].contains(row.geometry)
    assert (polygons.loc[places["polygon"], "name"].to_numpy() == places["class"].to_numpy()).all()
    plane = geopandas.read_file(path, layer="tsne")
    assert plane["id"].tolist() == places["id"].tolist()
    assert np.allclose(plane.geometry.x, places["tsne_1"])
    assert np.allclose(features.pca[:, 0], places["pca_1"], atol=1e-4)


def test_an_earlier_file_is_not_replaced_unasked(job, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.diagnostics.features.FEATURE_PIXELS", 12)
    (tmp_path / "features.gpkg").touch()
    with pytest.raises(OutputError):
        written(job, tmp_path / "features.gpkg")


def test_explained_variance_is_that_of_scikit_learn():
    table = np.random.default_rng(0).normal(size=(80, 6)) * [1, 5, 2, 1, 1, 0]
    expected = PCA(2).fit(StandardScaler().fit_transform(table[:, :5])).explained_variance_ratio_
    assert explained(table, embed(table, method="pca")) == pytest.approx(expected.tolist(), rel=1e-6)


def test_classes_are_alike_in_a_sample(job):
    some = spread(job.pixels[0], 30, seed=1)
    assert np.unique(some.code, return_counts=True)[1].tolist() == [10, 10, 10]


@pytest.fixture(scope="module")
def clouds():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    return rng.standard_normal((120, 12)) + labels[:, None] * 4, labels


def test_pca_is_that_of_standardised_features(clouds):
    features, _ = clouds
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    assert np.abs(embed(features)) == pytest.approx(np.abs(PCA(2).fit_transform(scaled)))


def test_tsne_keeps_groups_apart_and_is_reproducible(clouds):
    features, labels = clouds
    xy = embed(features, method="tsne", seed=3)
    assert (xy == embed(features, method="tsne", seed=3)).all()
    centres = np.array([xy[labels == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == labels).mean() > 0.95


@pytest.mark.skipif(find_spec("umap") is None, reason="the package umap-learn is not installed")
def test_umap_keeps_groups_apart_and_is_reproducible(clouds, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than so few points
    features, labels = (part[::2] for part in clouds)
    xy = embed(features, method="umap", seed=3)
    assert xy.shape == (60, 2)
    assert (xy == embed(features, method="umap", seed=3)).all()
    centres = np.array([xy[labels == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == labels).mean() > 0.95


def test_umap_that_is_not_installed_is_said(clouds, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match="umap-learn"):
        embed(clouds[0], method="umap")


def test_places_and_planes_share_their_ids(clouds, tmp_path):
    features, labels = clouds
    grid = read_grid(write_map(tmp_path / "m.tif", patchy()))
    xy = embed(features)
    path = tmp_path / "features.gpkg"
    places = grid.xy(np.arange(120), np.arange(120))
    layers = embedding_layers(
        {"pca": xy}, xy=places, code=np.array(SCHEME.codes)[labels], crs=grid.crs.to_wkt(), scheme=SCHEME
    )
    write_geopackage(path, layers, what="the features")
    assert {name for name, kind in pyogrio.list_layers(path) if kind is not None} == {"places", "pca"}
    with closing(sqlite3.connect(path)) as file:
        styles = dict(file.execute("SELECT f_table_name, styleQML FROM layer_styles"))
    assert set(styles) == {"places", "pca"}
    assert all(f'value="{name}"' in styles["pca"] for name in SCHEME.names)
    places, plane = (geopandas.read_file(path, layer=layer) for layer in ("places", "pca"))
    assert (places["id"] == plane["id"]).all()
    assert places["pca_1"].to_numpy() == pytest.approx(plane.geometry.x.to_numpy())
    assert places.geometry.x[3] == pytest.approx(grid.xy(3, 3)[0])
