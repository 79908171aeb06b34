from __future__ import annotations

import geopandas
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from pipeline.diagnostics.features import embed
from pipeline.errors import OutputError
from pipeline.workflow.features import FILE, explained, spread, write_features
from pipeline.workflow.job import Job


@pytest.fixture(scope="module")
def job(finished) -> Job:
    return Job.load(finished.config)


def test_points_lie_on_their_pixels_and_know_class_and_polygon(job, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.workflow.features.FEATURE_PIXELS", 60)
    found = write_features(job, tmp_path, overwrite=False)
    assert found is not None
    features, path = found
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
    monkeypatch.setattr("pipeline.workflow.features.FEATURE_PIXELS", 12)
    (tmp_path / FILE).touch()
    with pytest.raises(OutputError):
        write_features(job, tmp_path, overwrite=False)


def test_explained_variance_is_that_of_scikit_learn():
    table = np.random.default_rng(0).normal(size=(80, 6)) * [1, 5, 2, 1, 1, 0]
    expected = PCA(2).fit(StandardScaler().fit_transform(table[:, :5])).explained_variance_ratio_
    assert explained(table, embed(table, method="pca")) == pytest.approx(expected.tolist(), rel=1e-6)


def test_classes_are_alike_in_a_sample(job):
    some = spread(job.pixels[0], 30, seed=1)
    assert np.unique(some.code, return_counts=True)[1].tolist() == [10, 10, 10]
