from __future__ import annotations

import geopandas
import numpy as np
import pytest
import rasterio

from pipeline.accuracy.sample_design import write_design
from pipeline.cli import main
from pipeline.errors import ReferenceDataError
from tests.accuracy.maps import SCHEME, assess_map, draw, patchy, points, spoil, write_map

NAMES = {item.code: item.name for item in SCHEME.classes}


def write_confidence(map_path, right, *, seed=0, useful=True):
    """Per cent beside the map: higher where it is right, or noise; nodata in a corner."""
    rng = np.random.default_rng(seed)
    sure = np.clip(50 + 20 * rng.standard_normal(right.shape) + (30 * right if useful else 0), 0, 100).astype(np.uint8)
    sure[100:110, 100:110] = 255
    path = map_path.with_name(map_path.name.replace("_lc.", "_conf."))
    with rasterio.open(map_path) as source, rasterio.open(path, "w", **source.profile | {"nodata": 255}) as target:
        target.write(sure, 1)
    return path


@pytest.fixture
def truth():
    return patchy()


@pytest.fixture
def world(tmp_path, truth):
    codes = spoil(truth, share=0.3)
    path = write_map(tmp_path / "m_lc.tif", codes)
    write_confidence(path, codes == truth)
    return path, codes


def reference(folder, path, truth, **told):
    design = draw(path, **told)
    files = write_design(folder / "s.gpkg", design, overwrite=True)
    frame = geopandas.read_file(files.geopackage, layer="sample")
    frame["reference"] = [NAMES[truth[r, c]] for r, c in zip(design.row, design.col, strict=True)]
    frame.to_file(folder / "filled.gpkg")
    return {"reference": folder / "filled.gpkg", "field": "reference", "design": files.design}


def figures(found):
    every = [found.figures.overall_accuracy]
    for item in found.figures.per_class.values():
        every += [item.users_accuracy, item.producers_accuracy, item.f1, item.area_share]
    return every


@pytest.mark.parametrize(
    "told",
    [
        {"kind": "stratified", "size": 400},
        {"kind": "simple_random", "size": 400},
        {"kind": "two_stage", "size": 80, "cluster_px": 5, "per_cluster": 6},
        {"kind": "systematic", "size": 400},
    ],
    ids=lambda told: told["kind"],
)
def test_intervals_are_never_wider_and_hold_the_truth(world, truth, tmp_path, told):
    path, codes = world
    given = reference(tmp_path, path, truth, seed=3, **told)
    plain, helped = assess_map(path, **given), assess_map(path, **given, assist="confidence")
    for one, two in zip(figures(plain), figures(helped), strict=True):
        assert one.se is None or two.se <= one.se * (1 + 1e-12)
    overall, valid = helped.figures.overall_accuracy, codes > 0
    assert abs(overall.estimate - (codes == truth)[valid].mean()) < 4 * overall.se
    assert "auxiliary of a regression estimator" in helped.words()
    if told["kind"] != "systematic":  # ten grids leave too few degrees of freedom to learn a slope
        assert overall.se < 0.95 * plain.figures.overall_accuracy.se
        assert helped.to_json()["assisted"]["width_over_plain"]["overall accuracy"] < 0.95


def test_a_confidence_worth_nothing_changes_nothing_much(world, truth, tmp_path):
    path, codes = world
    write_confidence(path, codes == truth, useful=False)
    given = reference(tmp_path, path, truth, size=400, seed=3)
    plain, helped = assess_map(path, **given), assess_map(path, **given, assist="confidence")
    one, two = plain.figures.overall_accuracy, helped.figures.overall_accuracy
    assert 0.97 * one.se < two.se <= one.se
    assert two.estimate == pytest.approx(one.estimate, abs=0.5 * one.se)


def test_a_perfect_confidence_gives_the_truth(world, truth, tmp_path):
    path, codes = world
    sure = np.where(codes == truth, 90, 40).astype(np.uint8)
    with rasterio.open(path.with_name("m_conf.tif"), "r+") as target:
        target.write(sure, 1)
    given = reference(tmp_path, path, truth, size=300, seed=5)
    found = assess_map(path, **given, assist=str(path.with_name("m_conf.tif"))).figures.overall_accuracy
    # With a constant gain per class the slope is exact up to the classes' own accuracies.
    assert found.estimate == pytest.approx((codes == truth)[codes > 0].mean(), abs=0.005)


def test_estimates_are_without_bias_over_many_samples(world, truth, tmp_path):
    path, codes = world
    found = []
    for seed in range(25):
        given = reference(tmp_path, path, truth, size=200, seed=seed)
        found.append(assess_map(path, **given, assist="confidence").area("water").estimate)
    true = (truth[codes > 0] == 20).sum() * 0.01
    assert abs(np.mean(found) - true) < 3 * np.std(found) / 5


class TestBadInput:
    def test_no_confidence_beside_the_map_is_said(self, world, truth, tmp_path):
        path, codes = world
        given = reference(tmp_path, path, truth, size=60)
        other = write_map(tmp_path / "alone.tif", codes)
        with pytest.raises(ReferenceDataError, match="no confidence of the map"):
            assess_map(other, **given, assist="confidence")
        with pytest.raises(ReferenceDataError, match="layer cannot be read"):
            assess_map(path, **given, assist=str(given["design"]))

    def test_what_is_no_sample_cannot_be_assisted(self, world, truth, tmp_path):
        rows = np.arange(60, 180, 4)
        filled = points(tmp_path / "p.gpkg", rows, rows, [NAMES[v] for v in truth[rows, rows]])
        with pytest.raises(ReferenceDataError, match="no probability sample"):
            assess_map(world[0], reference=filled, field="cover", assist="confidence")

    def test_a_sample_of_a_part_cannot_be_assisted(self, world, truth, tmp_path):
        part = np.zeros_like(truth)
        part[:, :150] = 1
        layer = write_map(tmp_path / "part.tif", part, scheme=None)
        given = reference(tmp_path, world[0], truth, size=60, strata=str(layer))
        with pytest.raises(ReferenceDataError, match="part of the map"):
            assess_map(world[0], **given, assist="confidence")

    def test_three_points_have_no_slope(self, world, truth, tmp_path):
        rows = np.array([60, 90, 150])
        filled = points(tmp_path / "p.gpkg", rows, rows, [NAMES[v] for v in truth[rows, rows]])
        found = assess_map(world[0], reference=filled, field="cover", design="simple random", assist="confidence")
        plain = assess_map(world[0], reference=filled, field="cover", design="simple random")
        assert figures(found) == figures(plain)
        assert "would not make any interval narrower" in found.words()


@pytest.mark.parametrize("damage", ["elsewhere", "bands", "cut"])
def test_a_confidence_that_says_nothing_is_refused(damage, tmp_path, world, truth, capsys):
    told = reference(tmp_path, world[0], truth, size=120)
    beside = world[0].with_name("m_conf.tif")
    with rasterio.open(beside) as source:
        profile, sure = source.profile, np.random.default_rng(0).integers(0, 100, (1, *truth.shape), dtype=np.uint8)
    moved = profile["transform"].translation(90_000, 0) @ profile["transform"]
    sure = np.repeat(sure, 2 if damage == "bands" else 1, axis=0)
    changes = {"transform": moved} if damage == "elsewhere" else {}
    with rasterio.open(beside, "w", **profile | {"count": len(sure), "tiled": False} | changes) as target:
        target.write(sure)
    if damage == "cut":
        beside.write_bytes(beside.read_bytes()[: -sure.nbytes // 3])
    words = ["--reference", told["reference"], "--field", "reference", "--design", told["design"]]
    assert main(["assess", *map(str, [world[0], *words]), "--assist", "confidence"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    expected = {"elsewhere": "no value at any unit", "bands": "one band of uint8", "cut": "raster cannot be read"}
    assert expected[damage] in said[0]


def test_a_raster_is_no_sample_to_assist(world):
    with pytest.raises(ReferenceDataError, match="leave design, strata and assist out"):
        assess_map(world[0], reference=world[0], assist="confidence")
