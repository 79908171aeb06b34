"""Points, existing maps, levels and rules per class, from the configuration to labelled pixels."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError, LabelError
from pipeline.workflow.job import Job
from tests.fakes.rasters import write_raster
from tests.fakes.small_world import CLASSES, POLYGON, SIDE, squares, truth, write_labels, write_scene, write_settings


def job_of(folder, frame=None, **labels):
    write_scene(folder / "scene.tif")
    write_labels(folder / "labels.gpkg", frame)
    return Job.load(write_settings(folder, labels={"path": "labels.gpkg", "field": "class"} | labels))


def points():
    frame = squares()
    return frame.set_geometry(frame.geometry.centroid)


@pytest.mark.parametrize(("how", "pixels"), [({"point_window_px": 3}, 9), ({"point_radius_m": 0}, 1)])
def test_points_label_pixels_around_them(tmp_path, how, pixels):
    job = job_of(tmp_path, points(), **how)
    assert len(job.pixels[0]) == pixels * len(squares())


def test_a_radius_in_a_local_crs_is_refused(tmp_path):
    local = 'LOCAL_CS["grid of the site",UNIT["metre",1]]'
    for how, frame in (({"point_radius_m": 25}, points()), ({"buffer_m": 5}, squares())):
        with pytest.raises(LabelError, match="points lie where none can"):
            _ = job_of(tmp_path, frame.set_crs(local, allow_override=True), **how).labels


def test_further_labels_may_name_their_layer(tmp_path):
    alone = len(job_of(tmp_path).labels)
    squares().to_crs(4326).iloc[:2].translate(0.0001).to_file(tmp_path / "more.gpkg", layer="other")
    more = squares().iloc[:3]
    more = more.set_geometry(more.geometry.translate(50, 0))
    more.to_file(tmp_path / "more.gpkg", layer="next")
    job = job_of(tmp_path, also=["more.gpkg|layername=next"])
    assert len(job.labels) == alone + 3
    before = job.input_hash
    more.iloc[:2].to_file(tmp_path / "more.gpkg", layer="next")
    assert job_of(tmp_path, also=["more.gpkg|layername=next"]).input_hash != before


def test_points_become_circles(tmp_path):
    job = job_of(tmp_path, points(), point_radius_m=25)
    assert job.labels.frame.area.to_numpy() == pytest.approx(np.pi * 25**2, rel=0.01)


def test_rules_of_one_class_leave_the_others_alone(tmp_path):
    plain = np.bincount(job_of(tmp_path).pixels[0].code, minlength=4)
    eroded = np.bincount(job_of(tmp_path, class_erode_px={CLASSES[0]: 1}).pixels[0].code, minlength=4)
    assert eroded[1] * 4 == plain[1]
    assert (eroded[2:] == plain[2:]).all()
    grown = np.bincount(job_of(tmp_path, class_buffer_m={CLASSES[1]: 10}).pixels[0].code, minlength=4)
    assert grown[2] > plain[2]
    assert grown[1] == plain[1]


def test_narrow_classes_label_what_they_touch(tmp_path):
    frame = squares()
    frame = frame.set_geometry(frame.geometry.buffer(-16))  # 8 m wide: less than a pixel
    plain = job_of(tmp_path, frame, class_all_touched={CLASSES[2]: True}).pixels[0]
    assert set(plain.code.tolist()) == {3}


@pytest.mark.parametrize("key", ["class_erode_px", "class_buffer_m", "class_all_touched"])
def test_a_rule_for_no_class_of_the_legend_is_refused(tmp_path, key):
    with pytest.raises(ConfigError, match=f"labels.{key}.*got Lava.*expected some of Cropland"):
        _ = job_of(tmp_path, **{key: {"Lava": 1}}).labels


def test_level_one_maps_the_groups(tmp_path):
    groups = {CLASSES[0]: "Plants", CLASSES[1]: "Plants"}
    fine, coarse = job_of(tmp_path, groups=groups), None
    assert fine.scheme.names == CLASSES
    pixels = fine.pixels[0]
    coarse = job_of(tmp_path, groups=groups, level=1)
    assert coarse.scheme.names == ("Plants", CLASSES[2])
    assert np.array_equal(coarse.pixels[0].code, np.where(pixels.code == 2, 1, pixels.code))
    assert coarse.scheme.by_name("Plants").color == fine.scheme.classes[0].color
    assert coarse.stage_key("chips") != fine.stage_key("chips")


def test_rules_at_level_one_are_those_of_the_classes_listed(tmp_path):
    groups = {CLASSES[0]: "Plants", CLASSES[1]: "Plants"}
    job = job_of(tmp_path, groups=groups, level=1, class_erode_px={CLASSES[0]: 1})
    assert set(np.bincount(job.pixels[0].polygon)[1:]) == {4, POLYGON**2}


def test_a_group_of_no_class_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"labels\.groups.*Lava"):
        _ = job_of(tmp_path, groups={"Lava": "Rock"}, level=1).labels


def test_an_existing_map_teaches(tmp_path):
    write_scene(tmp_path / "scene.tif")
    write_raster(tmp_path / "map.tif", (truth() + 1).astype(np.uint8)[None], names=("class",))
    job = Job.load(write_settings(tmp_path, labels={"path": "map.tif", "pieces": 5, "piece_px": 8, "erode_px": 1}))
    pixels = job.pixels[0]
    assert job.labels.polygons_per_class() == dict.fromkeys(CLASSES, 5)
    assert np.array_equal(pixels.code, truth(SIDE)[pixels.row, pixels.col] + 1)


def test_a_vector_file_needs_a_field(tmp_path):
    with pytest.raises(ConfigError, match=r"labels\.field"):
        _ = job_of(tmp_path, field="").labels


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"point_window_px": 4}, "odd"),
        ({"point_window_px": 3, "point_radius_m": 5}, "exclude"),
        ({"level": 3}, "level"),
    ],
)
def test_settings_of_points_and_levels_are_checked(tmp_path, labels, said):
    with pytest.raises(ConfigError, match=said):
        job_of(tmp_path, **labels)


@pytest.mark.parametrize(
    ("given", "absolute"),
    [("encoder.pth", True), ("../weights/a", True), ("none", False), ("ResNet18_Weights.SENTINEL2_ALL_MOCO", False)],
)
def test_a_weights_file_is_relative_to_the_configuration(tmp_path, given, absolute):
    weights = load_config(write_settings(tmp_path, training={"context": {"weights": given}})).training.context.weights
    assert weights == (str((tmp_path / given).resolve()) if absolute else given)


def test_a_changed_weights_file_is_another_job(tmp_path):
    (tmp_path / "encoder.pth").write_bytes(b"one")
    config = write_settings(tmp_path, training={"context": {"weights": "encoder.pth"}})
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "labels.gpkg")
    before = Job.load(config).stage_key("train")
    (tmp_path / "encoder.pth").write_bytes(b"two")
    assert Job.load(config).stage_key("train") != before
