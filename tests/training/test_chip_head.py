"""The chip classifier: from polygons of scenes, and from folders of chips."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from sklearn.ensemble import RandomForestClassifier

from pipeline.errors import LabelError, ModelError
from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.model.reach import whole_cells
from pipeline.scenes.settings import SceneOptions
from pipeline.splits.split import Part
from pipeline.training.chip_files import chips_from_folders
from pipeline.training.chip_folders import classify_chips, fit_chips
from pipeline.training.chip_head import balanced_chance
from pipeline.training.context import BEST
from pipeline.training.crossval import predict_pixels
from pipeline.training.settings import TrainingSettings
from tests.training.worlds import SIDE, TINY, changed, fit, make_job

CHIP = changed(TINY, {"head": "chip", "context.enabled": False, "pixels.steps": 60, "pixels.batch": 64})
# With a second network, of pixels.
BOTH = changed(CHIP, {"context.enabled": True, "context.steps": 4})
# The order of EuroSAT's files: band 8A last.
EUROSAT = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")


def write_folders(folder, *, levels=(0.1, 0.3), count=4, side=16, bands=("red", "nir")):
    rng = np.random.default_rng(0)
    for name, level in zip(("dark", "bright", "brighter"), levels, strict=False):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            values = rng.normal(level, 0.02, (len(bands), side, side)).astype(np.float32)
            with rasterio.open(
                folder / name / f"{number}.tif", "w", driver="GTiff", height=side, width=side, count=len(bands),
                dtype="float32", crs="EPSG:32633", transform=Affine(10, 0, 5e5, 0, -10, 5.8e6),
            ) as out:  # fmt: skip
                out.write(values)
                out.descriptions = bands
    return folder


def test_a_chip_classifier_learns_from_polygons_and_maps_cells(tmp_path):
    scene, split, scheme = make_job(tmp_path)
    result = fit([scene], split, scheme, settings=CHIP, folder=tmp_path / "run")
    (spec,) = result.bundle.specs
    assert (spec.head, spec.statistics, spec.chip_px, spec.chip_stride_px) == ("chip", True, 16, 4)
    assert {key for row in result.history for key in row} == {"step", "pixel_loss"}
    assert result.out_of_fold is not None
    assert set(result.out_of_fold.polygon) <= set(range(1, 9))
    bundle = load_bundle(save_bundle(tmp_path / "m.safetensors", result.bundle))
    test = split.pixels(scene.pixels, Part.TEST)
    codes = predict_pixels(bundle, scene.source, test)
    assert (codes == test.code).mean() > 0.9
    asked = MapSettings(engine="torch", dtype="float32", device="cpu", threads=1, tile_px=32)
    with predict_scene(bundle, scene.source, out=tmp_path / "map", settings=asked) as mapped:
        whole = mapped.codes.read(scene.source.grid.window)
    cells = whole.reshape(SIDE // 4, 4, SIDE // 4, 4)
    assert (cells == cells[:, :1, :, :1]).all()
    assert np.array_equal(whole[test.row, test.col], codes)


def test_a_chip_classifier_stops_early_on_validation_polygons(tmp_path):
    scene, split, scheme = make_job(tmp_path)
    settings = changed(BOTH, {"context.patience": 9, "refit": False})
    result = fit([scene], split, scheme, settings=settings, folder=tmp_path)
    assert [spec.statistics for spec in result.bundle.specs] == [True, False]
    assert result.bundle.shares == (0.8, 0.2)
    assert (tmp_path / BEST).is_file()
    assert sum("val_loss" in row for row in result.history) == 4


def test_classes_then_polygons_then_places_are_drawn_alike():
    index, polygon = np.array([0, 0, 0, 1, 1], np.uint8), np.array([1, 1, 2, 3, 3])
    chance = balanced_chance(index, polygon)
    assert np.isclose(chance[index == 0].sum(), 0.5)
    assert np.isclose(chance[polygon == 1].sum(), chance[polygon == 2].sum())
    assert np.isclose(chance.sum(), 1)


def test_tiles_hold_whole_cells_and_their_chips():
    from pipeline.model.spec import NetworkSpec

    spec = NetworkSpec(2, 2, encoder="none", head="chip", chip_px=130, chip_stride_px=10)
    assert whole_cells([spec], tile_px=256, halo_px=32) == (260, 60)
    assert whole_cells([NetworkSpec(2, 2)], tile_px=256, halo_px=32) == (256, 32)


def test_folders_of_chips_teach_a_model(tmp_path):
    chips = chips_from_folders(write_folders(tmp_path / "chips"))
    assert (len(chips), chips.bands, chips.scheme.names) == (8, ("red", "nir"), ("bright", "dark"))
    assert chips.gsd_m == pytest.approx(10, rel=1e-3)
    one, other = (fit_chips(chips, settings=CHIP, folder=tmp_path / n).bundle for n in "ab")
    assert np.array_equal(classify_chips(one, chips), chips.scheme.index_to_code[chips.index])
    for name, value in one.members[0].state_dict().items():
        assert torch.equal(value, other.members[0].state_dict()[name])
    again = load_bundle(save_bundle(tmp_path / "m.safetensors", one))
    assert np.array_equal(classify_chips(again, chips), classify_chips(one, chips))


def test_chips_of_another_size_are_not_classified(tmp_path):
    chips = chips_from_folders(write_folders(tmp_path / "chips"))
    bundle = fit_chips(chips, settings=changed(CHIP, {"pixels.steps": 2}), folder=tmp_path / "run").bundle
    small = chips_from_folders(write_folders(tmp_path / "small", side=12))
    with pytest.raises(LabelError, match="learned from"):
        classify_chips(bundle, small)


def test_with_patience_some_chips_of_each_class_judge(tmp_path):
    chips = chips_from_folders(write_folders(tmp_path / "chips"))
    result = fit_chips(chips, settings=changed(BOTH, {"context.patience": 20, "refit": False}), folder=tmp_path)
    assert result.bundle.provenance["held"] == 2
    assert (tmp_path / BEST).is_file()
    assert len(result.bundle.members) == 2
    assert len(classify_chips(result.bundle, chips)) == len(chips)


def test_folders_that_are_no_chips_are_refused(tmp_path):
    with pytest.raises(LabelError, match="no folders of chips"):
        chips_from_folders(tmp_path / "nothing")
    mixed = write_folders(tmp_path / "mixed")
    write_folders(tmp_path / "large", side=32)
    (tmp_path / "large" / "dark" / "0.tif").rename(mixed / "dark" / "9.tif")
    with pytest.raises(LabelError, match="another size"):
        chips_from_folders(mixed)


@pytest.mark.parametrize("chip_px", [7, 6])
def test_chips_too_small_for_statistics_are_refused(tmp_path, chip_px):
    chips = chips_from_folders(write_folders(tmp_path / "chips", side=chip_px))
    with pytest.raises(ModelError, match="too small for statistics"):
        fit_chips(chips, settings=CHIP, folder=tmp_path)


def test_eurosat_is_told_apart_better_than_by_a_forest(shared_data, tmp_path):
    folder = shared_data / "eurosat_ms_1pct" / "data" / "Euro_MS_Test_red"
    options = SceneOptions(bands=EUROSAT, sensor="sentinel-2", scale=1e-4, offset=0.0)
    train, test = (chips_from_folders(folder / part, options=options) for part in ("train", "test"))
    settings = changed(TrainingSettings(), {"head": "chip", "experts.trees": 40, "pixels.steps": 300})
    bundle = fit_chips(train, settings=settings, folder=tmp_path).bundle
    right = classify_chips(bundle, test) == test.scheme.index_to_code[test.index]
    tables = [np.concatenate([part.values.mean((2, 3)), part.values.std((2, 3))], axis=1) for part in (train, test)]
    forest = RandomForestClassifier(100, random_state=0).fit(tables[0], train.index)
    assert right.mean() > forest.score(tables[1], test.index)
