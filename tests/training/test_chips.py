"""Chips are windows around labelled pixels of their own part, and come back from disk as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import torch

from pipeline.errors import GridError, InputError, OutputError
from pipeline.grid import Grid, Window
from pipeline.model.preprocess import Preprocess
from pipeline.scenes.reader import open_reader
from pipeline.splits.search import split_blocks
from pipeline.splits.split import Part
from pipeline.training.chip_index import UNLABELLED, read_index, write_index
from pipeline.training.chip_set import read_chips
from pipeline.training.chips import centres, check_chip_fits, choose_chips, largest_chip_px
from pipeline.training.fit import fit
from pipeline.training.settings import ChipSettings
from tests.splits.test_split import GRID, SCHEME, scattered, squares
from tests.training.worlds import CHIPS, TINY, make_job


@pytest.fixture(scope="module")
def planned() -> tuple[object, object, object]:
    pixels = scattered()
    split = split_blocks([pixels], block_m=1000, buffer_m=160, seed=1)
    return (
        pixels,
        split,
        choose_chips({"s": pixels}, settings=ChipSettings(size_px=32, unlabelled=5), split=split, scheme=SCHEME),
    )


def test_a_chip_is_centred_on_a_pixel_and_counts_of_its_part(planned) -> None:
    pixels, split, index = planned
    assert set(index.frame["part"]) == {"train", "validation", UNLABELLED}
    for (_, window), row in zip(index.windows(), index.frame.to_dict("records"), strict=True):
        if row["part"] == UNLABELLED:
            assert row["polygons"] == []
            continue
        own = split.pixels(pixels, Part[row["part"].upper()])
        codes, polygons = own.dense(window)
        assert polygons[16, 16] > 0
        assert row["polygons"] == sorted(set(polygons[polygons > 0].tolist()))
        assert [row[f"px_{code}"] for code in SCHEME.codes] == [int((codes == code).sum()) for code in SCHEME.codes]


def test_every_polygon_that_is_used_lies_in_a_chip(planned) -> None:
    _, split, index = planned
    for part in (Part.TRAIN, Part.VALIDATION):
        own = index.frame[index.frame["part"] == part.name.lower()]
        covered = {i for ids in own["polygons"] for i in ids}
        assert covered == set(split.polygons(part).tolist())


def test_large_polygon_has_a_chip_every_stride() -> None:
    pixels = squares([(0, 0)], [1], side=64)
    assert len(centres(pixels, stride_px=16)) == 16
    assert len(centres(pixels, stride_px=64)) == 1
    assert len(centres(pixels.select([]), stride_px=8)) == 0


def test_a_chip_beyond_the_scene_names_the_largest_possible() -> None:
    small = Grid(GRID.crs, GRID.transform, 250, 237)
    with pytest.raises(GridError, match=r"chip of 256 x 256 pixels does not fit into scene 's'.*at most 224 pixels"):
        check_chip_fits(small, chip_px=256, scene="s")
    assert largest_chip_px(Grid(GRID.crs, GRID.transform, 1, 1)) == 1


def test_index_comes_back_from_parquet_as_it_was(planned, tmp_path: Path) -> None:
    _, _, index = planned
    back = read_index(write_index(tmp_path / "index.parquet", index))
    assert back.frame.equals(index.frame)
    assert back.scheme == index.scheme
    assert dict(back.grids) == dict(index.grids)
    assert [file.name for file in tmp_path.iterdir()] == ["index.parquet"]


def test_geopackage_holds_the_outlines_in_the_scene_crs(planned, tmp_path: Path) -> None:
    _, _, index = planned
    write_index(tmp_path / "chips.gpkg", index)
    frame = gpd.read_file(write_index(tmp_path / "chips.gpkg", index), layer="s")
    assert frame.crs == "EPSG:32632"
    assert len(frame) == len(index)
    _, window = index.windows()[0]
    assert np.allclose(frame.geometry[0].bounds, GRID.crop(window).bounds)
    assert set(frame["split"]) == {"train", "validation", UNLABELLED}
    assert frame["polygons"][0] == " ".join(map(str, index.frame["polygons"][0]))


def test_what_is_no_index_is_refused(planned, tmp_path: Path) -> None:
    import pandas as pd

    _, _, index = planned
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("text", encoding="utf-8")
    for name in ("a.parquet", "b.parquet", "c.parquet"):
        with pytest.raises(InputError, match="not a chip index"):
            read_index(tmp_path / name)
    with pytest.raises(OutputError, match=r"expected \.parquet or \.gpkg"):
        write_index(tmp_path / "a.csv", index)
    with pytest.raises(OutputError, match="cannot write the chip index"):
        write_index(tmp_path / "b.parquet" / "a.parquet", index)


def test_window_of_a_chip_is_a_window(planned) -> None:
    _, _, index = planned
    scene, window = index.windows()[0]
    assert scene == "s"
    assert isinstance(window, Window)
    assert window.shape == (32, 32)


def test_training_reads_the_windows_of_the_index(tmp_path) -> None:
    scene, split, scheme = make_job(tmp_path)
    pixels = {scene.source.id: scene.pixels}
    chosen = choose_chips(pixels, settings=CHIPS, split=split, scheme=scheme)
    index = read_index(write_index(tmp_path / "index.parquet", chosen))
    plain = Preprocess(("red", "nir"), (0.0, 0.0), (1.0, 1.0), 0.0)
    chips = read_chips([scene], index, split=split, preprocess=plain)
    with open_reader(scene.source) as reader:
        for number, (name, window) in enumerate(index.windows()):
            assert name == scene.source.id
            raster = reader.read(window)
            assert np.array_equal(chips.x[number].numpy(), plain(raster.values, raster.valid).numpy())
            assert np.array_equal(chips.valid[number].numpy(), raster.valid)
    assert len(chips) == len(index)


def test_editing_the_index_changes_what_is_trained(tmp_path) -> None:
    scene, split, scheme = make_job(tmp_path)
    pixels = {scene.source.id: scene.pixels}
    chosen = choose_chips(pixels, settings=CHIPS, split=split, scheme=scheme)
    fewer = replace(chosen, frame=chosen.frame.iloc[:-1])
    whole, edited = (
        fit([scene], split, scheme, index=index, settings=TINY, folder=tmp_path / "run").bundle.members[0]
        for index in (chosen, fewer)
    )
    assert not torch.equal(whole.head.weight, edited.head.weight)
    elsewhere = replace(chosen, frame=chosen.frame.assign(scene="other"))
    with pytest.raises(InputError, match="chip index of other scenes"):
        fit([scene], split, scheme, index=elsewhere, settings=TINY, folder=tmp_path / "run")
