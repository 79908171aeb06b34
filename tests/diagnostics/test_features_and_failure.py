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
import rasterio
from shapely.geometry import Point, box
from sklearn.decomposition import PCA

from pipeline.accuracy.assess_reference import read_reference
from pipeline.accuracy.class_maps import read_grid
from pipeline.diagnostics.failure import surroundings, where_it_fails, write_block_accuracy, write_surely_wrong
from pipeline.diagnostics.features import embed, write_embeddings
from pipeline.errors import ConfigError, OutputError, ReferenceDataError
from pipeline.labels.rasterise import burn
from pipeline.labels.source import LabelReport, Labels
from tests.accuracy.maps import SCHEME, UTM, patchy, points, spoil, write_map

NAME = {item.code: item.name for item in SCHEME.classes}


def write_confidence(path, confidence, *, like):
    """Confidence in percent on the grid of a map."""
    with rasterio.open(like) as source:
        profile = source.profile | {"nodata": 255}
    with rasterio.open(path, "w", **profile) as target:
        target.write(confidence, 1)


def labelled(shapes, codes):
    """Labels of shapes, on the map's CRS."""
    ids = np.arange(1, len(shapes) + 1, dtype=np.int32)
    columns = {"poly_id": ids, "code": np.array(codes, np.uint8), "name": [NAME[c] for c in codes], "feature": ids - 1}
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=UTM)
    return Labels(Path("labels.gpkg"), frame, SCHEME, LabelReport(len(ids), 0, 0, 0, 0, 0, 0, len(ids)))


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
def test_umap_keeps_groups_apart_and_is_reproducible(clouds):
    features, labels = clouds
    xy = embed(features, method="umap", seed=3)
    assert xy.shape == (120, 2)
    assert (xy == embed(features, method="umap", seed=3)).all()
    centres = np.array([xy[labels == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == labels).mean() > 0.95


def test_umap_that_is_not_installed_is_said(clouds, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match="umap-learn"):
        embed(clouds[0], method="umap")


def test_too_few_points_are_refused():
    with pytest.raises(ReferenceDataError, match="3 or more"):
        embed(np.zeros((2, 4)))


def test_places_and_planes_share_their_ids(clouds, tmp_path):
    features, labels = clouds
    grid = read_grid(write_map(tmp_path / "m.tif", patchy()))
    xy = embed(features)
    path = tmp_path / "features.gpkg"
    arguments = {"row": np.arange(120), "col": np.arange(120), "class_code": np.array(SCHEME.codes)[labels]}
    write_embeddings(path, {"pca": xy}, grid=grid, scheme=SCHEME, **arguments)
    assert {name for name, kind in pyogrio.list_layers(path) if kind is not None} == {"places", "pca"}
    with closing(sqlite3.connect(path)) as file:
        styles = dict(file.execute("SELECT f_table_name, styleQML FROM layer_styles"))
    assert set(styles) == {"places", "pca"}
    assert all(f'value="{name}"' in styles["pca"] for name in SCHEME.names)
    places, plane = (geopandas.read_file(path, layer=layer) for layer in ("places", "pca"))
    assert (places["id"] == plane["id"]).all()
    assert places["pca_1"].to_numpy() == pytest.approx(plane.geometry.x.to_numpy())
    assert places.geometry.x[3] == pytest.approx(grid.xy(3, 3)[0])
    with pytest.raises(OutputError, match="file exists"):
        write_embeddings(path, {"pca": xy}, grid=grid, scheme=SCHEME, **arguments)


class TestFailure:
    @pytest.fixture
    def halves(self, tmp_path):
        """Forest left, water right of column 100, a field of 2 x 2 pixels inside the forest."""
        codes = np.full((120, 200), 10, dtype=np.uint8)
        codes[:, 100:] = 20
        codes[60:62, 40:42] = 30
        return write_map(tmp_path / "m.tif", codes)

    def test_distance_to_the_edge_and_patch_size(self, halves):
        distance, patch = surroundings(halves, np.array([5, 5, 60, 100]), np.array([99, 90, 40, 180]))
        assert distance.tolist() == [1.0, 10.0, 1.0, 32.0]
        assert patch[2] == 4
        assert patch[3] > 500

    def test_errors_at_edges_show(self, halves, tmp_path):
        rows, cols = np.full(20, 20), np.r_[96:106, 20:30]
        values = ["field"] * 10 + ["forest"] * 10
        path = points(tmp_path / "p.gpkg", rows, cols, values)
        units = read_reference(path, map_path=halves, scheme=SCHEME, field="cover")
        by_edge, by_patch = where_it_fails(halves, units)
        assert by_edge.accuracy[0] == 0
        assert by_edge.accuracy[-1] == 1
        assert by_edge.count.sum() == by_patch.count.sum() == 20
        assert by_patch.to_json()["accuracy"][0] is None

    def test_blocks_carry_their_accuracy(self, tmp_path):
        truth = patchy()
        path = write_map(tmp_path / "m.tif", spoil(truth))
        rows, cols = np.nonzero(truth[::7, ::7])
        file = points(tmp_path / "p.gpkg", rows * 7, cols * 7, [NAME[v] for v in truth[rows * 7, cols * 7]])
        units = read_reference(file, map_path=path, scheme=SCHEME, field="cover")
        n = write_block_accuracy(tmp_path / "b.gpkg", units, grid=read_grid(path), block_px=100)
        blocks = geopandas.read_file(tmp_path / "b.gpkg")
        assert n == len(blocks) == 6
        assert blocks["units"].sum() == len(units)
        assert blocks["right"].sum() == (units.map_code == units.reference_code).sum()

    def test_polygons_that_are_most_surely_wrong_come_first(self, halves, tmp_path):
        confidence = np.full((120, 200), 60, dtype=np.uint8)
        confidence[:, 150:] = 95
        write_confidence(tmp_path / "c.tif", confidence, like=halves)
        shapes = [box(500_000 + c * 10, 5_799_500, 500_000 + (c + 10) * 10, 5_799_600) for c in (10, 110, 160)]
        labels = labelled(shapes, codes=[10, 10, 30])
        n = write_surely_wrong(
            tmp_path / "w.gpkg",
            labels.frame,
            pixels=burn(labels, read_grid(halves)),
            map_path=halves,
            confidence_path=tmp_path / "c.tif",
            scheme=SCHEME,
        )
        found = geopandas.read_file(tmp_path / "w.gpkg")
        assert n == 2
        assert found["polygon"].tolist() == [3, 2]
        assert found["mapped_as"].tolist() == ["water", "water"]
        assert found["sureness"].tolist() == pytest.approx([0.95, 0.6])

    def test_a_point_is_judged_by_the_pixels_it_labels_and_drawn_as_their_square(self, halves, tmp_path):
        write_confidence(tmp_path / "c.tif", np.full((120, 200), 80, dtype=np.uint8), like=halves)
        # Both on forest: of the pixels of the first, those in the third column are water; of the second, none.
        labels = labelled([Point(500_985, 5_799_495), Point(500_485, 5_799_495)], codes=[10, 10])
        for side_px, rows in ((1, []), (5, [(1, "water", 25, 0.2, 0.16)])):
            write_surely_wrong(
                tmp_path / "w.gpkg",
                labels.frame,
                pixels=burn(labels, read_grid(halves), point_window_px=side_px),
                map_path=halves,
                confidence_path=tmp_path / "c.tif",
                scheme=SCHEME,
                overwrite=True,
            )
            found = geopandas.read_file(tmp_path / "w.gpkg")
            columns = found[["polygon", "mapped_as", "pixels", "wrong_share", "sureness"]]
            assert [tuple(row) for row in columns.itertuples(index=False)] == [pytest.approx(row) for row in rows]
        assert found.geometry.iloc[0].equals(box(500_960, 5_799_470, 501_010, 5_799_520))
