"""Bands without names are matched by position: said, and refused where they are spread in another order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import ModelError, ModelWarning
from pipeline.model.checks import check_source, histograms_of, sample_values
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.scenes.indices import with_textures

NAMELESS = ("band1", "band2")


@pytest.fixture
def nameless(bundle, make_scene):
    """The small model of bands that have no names, with the histograms of the scene."""
    preprocess = Preprocess.from_statistics(bands=NAMELESS, mean=[0.3, 0.1], std=[0.1, 0.05])
    known = histograms_of([sample_values(make_scene(bands=NAMELESS))])
    return replace(bundle, preprocess=preprocess, histograms=known, value_range=((0, 0.8), (0, 0.8)))


def test_bands_matched_by_position_are_said(nameless, make_scene):
    with pytest.warns(ModelWarning, match="bands have no names and are matched by position: 1 to 2"):
        check_source(nameless, make_scene(bands=NAMELESS))


@pytest.mark.filterwarnings("ignore::pipeline.errors.ModelWarning")
def test_bands_in_another_order_are_refused(nameless, make_scene):
    scene = make_scene(bands=NAMELESS)
    turned = replace(scene, bands=tuple(replace(b, index=3 - b.index) for b in scene.bands))
    with pytest.raises(ModelError, match="position 1 looks like the model's 2, position 2 looks like the model's 1"):
        check_source(nameless, turned)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (NAMELESS[:1], "the one band has no name and is taken for that of the training scenes"),
        (NAMELESS, "bands have no names and are matched by position: 1 to 2, as in the training scenes"),
    ],
)
def test_only_bands_of_the_file_are_matched_by_position(bundle, make_scene, recwarn, own, told):
    source = with_textures(make_scene(bands=NAMELESS).select(own), [3])
    size = len(source.band_names)
    wide = replace(
        bundle, members=(build_network(NetworkSpec(size, 3, encoder="none")),), shares=(), units=source.units,
        preprocess=Preprocess.from_statistics(bands=source.band_names, mean=[0.2] * size, std=[0.1] * size),
        value_range=((0, 0.8),) * size, histograms=histograms_of([sample_values(source)]),
    )  # fmt: skip
    check_source(wide, source)
    said = [str(item.message).partition(": ")[2] for item in recwarn]
    assert [text for text in said if "name" in text] == [told]


def test_named_bands_need_no_word(bundle, make_scene, recwarn):
    check_source(bundle, make_scene())
    assert not [item for item in recwarn if "position" in str(item.message)]
