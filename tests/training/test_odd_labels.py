"""Labels as users have them: absent classes, single polygons, several scenes, all in one corner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipeline.errors import LabelError, LabelWarning, PipelineError
from pipeline.legend import scheme_for
from pipeline.scenes.opening import open_scene
from pipeline.splits.folds import block_folds
from pipeline.splits.split import Part
from pipeline.training.crossval import predict_pixels
from tests.training.worlds import PIXELS, cross_validate, fit, make_job, parts


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


def test_a_class_without_training_polygons_stays_in_the_legend(job, tmp_path):
    scene, split, scheme = job
    only_low = parts(split, {2: 3, 4: 3, 6: 3, 8: 3})
    bundle = fit([scene], only_low, scheme, settings=PIXELS, folder=tmp_path).bundle
    assert bundle.scheme.names == ("low", "high")
    test = split.pixels(scene.pixels, Part.TEST)
    assert set(predict_pixels(bundle, scene.source, test)) == {scheme.by_name("low").code}


def masked(job, folder, hidden):
    """The scene with no data under some polygons."""
    scene, _, _ = job
    path = folder / "masked.tif"
    path.write_bytes(Path(scene.source.path).read_bytes())
    under = np.isin(scene.pixels.polygon, hidden)
    with rasterio.open(path, "r+") as raster:
        values = raster.read()
        values[:, scene.pixels.row[under], scene.pixels.col[under]] = np.nan
        raster.write(values)
    return replace(scene, source=open_scene(path))


def test_a_class_all_masked_is_refused_or_warned_about(job, tmp_path):
    scene, split, scheme = job
    hidden = masked(job, tmp_path, [1, 3, 5, 7])
    with pytest.raises(LabelError, match=r"fewer than two classes have usable pixels; got .* under all of low"):
        fit([hidden], split, scheme, settings=PIXELS, folder=tmp_path)
    three, _ = scheme_for(["low", "high", "third"])
    code = np.where(np.isin(scene.pixels.polygon, [5, 6]), three.by_name("third").code, scene.pixels.code)
    hidden = masked(job, tmp_path, [5, 6])
    hidden = replace(hidden, pixels=replace(scene.pixels, code=code.astype(np.uint8)))
    with pytest.warns(LabelWarning, match="no training pixel of class third"):
        fit([hidden], split, three, settings=PIXELS, folder=tmp_path)


def test_a_class_of_one_polygon_is_learned(job, tmp_path):
    scene, split, scheme = job
    one = parts(split, {4: 3, 6: 3, 8: 3})
    bundle = fit([scene], one, scheme, settings=PIXELS, folder=tmp_path).bundle
    test = split.pixels(scene.pixels, Part.TEST)
    assert (predict_pixels(bundle, scene.source, test) == test.code).mean() > 0.9


def test_scenes_of_two_zones_teach_one_model(job, tmp_path):
    scene, split, scheme = job
    other, shifted, _ = make_job(tmp_path, name="other", zone=34, first_id=13)
    both = replace(
        split,
        part=np.concatenate([split.part, shifted.part[13:]]),
        block_of=np.concatenate([split.block_of, shifted.block_of[13:] + 6]),
    )
    result = fit([scene, other], both, scheme, settings=PIXELS, folder=tmp_path)
    assert [item.scene for item in result.bundle.sources] == ["scene", "other"]
    assert result.bundle.footprint["type"] == "MultiPolygon"
    assert result.bundle.provenance["polygons"]["train"] == 12
    test = both.pixels(other.pixels, Part.TEST)
    assert (predict_pixels(result.bundle, other.source, test) == test.code).mean() > 0.9


def test_no_training_polygon_at_all_is_an_error(job, tmp_path):
    scene, split, scheme = job
    with pytest.raises(LabelError, match="no valid labelled pixel"):
        fit([scene], parts(split, dict.fromkeys(range(1, 7), 2)), scheme, settings=PIXELS, folder=tmp_path)


def test_polygons_in_one_corner_teach_but_give_no_block_folds(job, tmp_path):
    scene, split, scheme = job
    corner = scene.pixels.select([1, 2, 3, 4])
    cornered = replace(scene, pixels=corner)
    taught = parts(split, dict.fromkeys(range(5, 13), -1))
    assert len(fit([cornered], taught, scheme, settings=PIXELS, folder=tmp_path).bundle.members) == 1
    with pytest.raises(PipelineError, match="block"):
        block_folds([corner], folds=5, block_m=2000, buffer_m=0, seed=0)


def test_fewer_blocks_than_folds_is_an_error_before_training(job, tmp_path):
    scene, _, scheme = job
    with pytest.raises(PipelineError, match="fold"):
        cross_validate(
            [scene],
            scheme,
            block_folds([scene.pixels], folds=9, block_m=400, buffer_m=0, seed=0),
            methods=("forest",),
            settings=PIXELS,
            folder=tmp_path,
        )
    assert not list(tmp_path.iterdir())
