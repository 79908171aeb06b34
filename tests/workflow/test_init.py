"""``landcover init``: the configuration it writes runs as it is and explains itself."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from unittest.mock import patch

import geopandas as gpd
import pytest
import shapely
import yaml

from pipeline.accuracy.crosswalk import to_codes
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, LabelError, LabelWarning, OutputError, SceneError, SceneWarning
from pipeline.labels.rasterise import burn
from pipeline.workflow.check import check_job
from pipeline.workflow.init import choose_chip_px, write_config
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.stages import run_stages
from tests.fakes.finished import run_job
from tests.fakes.small_world import BANDS, CLASSES, reflectance, squares, write_labels, write_scene, write_settings


def init(folder: Path, *, field: str = "class", output: Path | None = None, overwrite: bool = False):
    return write_config(
        [str(folder / "scene.tif")],
        labels=folder / "labels.gpkg",
        field=field,
        layer=None,
        output=output or folder / "config.yaml",
        overwrite=overwrite,
    )


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "labels.gpkg")
    return tmp_path


def relabel(folder: Path, frame: gpd.GeoDataFrame) -> None:
    (folder / "labels.gpkg").unlink()
    write_labels(folder / "labels.gpkg", frame)


def test_it_names_bands_and_classes_and_says_what_to_do_next(world):
    outcome = init(world)
    config = load_config(world / "config.yaml")
    assert config.inputs.bands == BANDS
    assert {item.name for item in config.classes} == set(CLASSES)
    assert "landcover run" in outcome.hint
    assert outcome.data["classes"] == squares()["class"].value_counts().to_dict()


def test_bands_left_out_are_named_with_the_way_back(world):
    write_scene(world / "scene.tif", names=(*BANDS[:-1], "lwir11"))
    with pytest.warns(SceneWarning, match="lwir11 measures the air or temperature"):
        init(world)
    text = (world / "config.yaml").read_text()
    assert load_config(world / "config.yaml").inputs.bands == BANDS[:-1]
    assert "# Not used: band lwir11 measures" in text


def test_a_known_legend_gives_its_colours(world):
    outcome = init(world)
    assert outcome.data["legend"] is not None
    colours = {item.name: item.color for item in load_config(world / "config.yaml").classes}
    assert colours["Tree cover"] == "#006400"  # ESA WorldCover


def test_integer_classes_are_classes_too(world):
    init(world, field="number")
    job = Job.load(world / "config.yaml")
    assert set(job.scheme.names) == {"1", "2", "3"}
    assert sum(len(pixels) for pixels in job.pixels) == 36 * 16


@pytest.mark.filterwarnings(
    "ignore:.*codes of a map are 1 to 254, 0 is no data and 255 unlabelled. 0 becomes 2, 255 bec"
)
@pytest.mark.parametrize(
    ("given", "codes"),
    [
        ((3, 200, 1), {"1": 1, "3": 3, "200": 200}),  # each its own
        ((0, 255, 1), {"1": 1, "0": 2, "255": 3}),  # not codes of a map: the free ones
    ],
)
def test_integer_classes_keep_their_codes(world, given, codes):
    frame = squares()
    frame = frame.assign(number=[given[number - 1] for number in frame["number"]])
    frame = frame.iloc[2:]  # classes of unlike size: the legend must not go by it
    relabel(world, frame)
    init(world, field="number")
    job = Job.load(world / "config.yaml")
    assert {item.name: item.code for item in job.scheme.classes} == codes
    expected = [codes[str(number)] for number in frame["number"]]
    assert job.labels.frame["code"].tolist() == expected
    assert to_codes(frame["number"].tolist(), scheme=job.scheme)[0].tolist() == expected


def test_a_class_called_by_the_code_of_another_is_refused(world):
    classes = [{"code": 1, "name": "2", "color": "#0072b2"}, {"code": 2, "name": "1", "color": "#009e73"}]
    job = Job.load(write_settings(world, classes=classes))
    with pytest.raises(ConfigError, match=r"class 1 is called '2', the code of class '1'.*labels\.aliases"):
        _ = job.scheme


@pytest.mark.parametrize("every", [1, 3])
def test_points_get_a_window_and_a_warning(world, every):
    frame = squares()
    frame.loc[::every, "geometry"] = frame.geometry.centroid[::every]
    points = len(frame.iloc[::every])
    relabel(world, frame)
    with pytest.warns(LabelWarning, match=rf"{points} of 36 labels are points.*labels\.point_window_px"):
        init(world)
    assert load_config(world / "config.yaml").labels.point_window_px == 3
    assert len(Job.load(world / "config.yaml").pixels[0]) == points * 9 + (36 - points) * 16


def test_the_classes_it_shows_count_polygons_that_are_kept(world):
    frame = squares()
    frame.loc[0, "geometry"] = shapely.LineString([(500000, 5000000), (500010, 5000000)])
    frame.loc[len(frame)] = frame.loc[1]
    relabel(world, frame)
    counts = squares()["class"].iloc[1:].value_counts()
    assert init(world).data["classes"] == counts.to_dict()


def test_one_class_is_refused(world):
    relabel(world, squares().assign(**{"class": "forest"}))
    with pytest.raises(LabelError, match="'class' holds fewer than two classes; got forest; draw"):
        init(world)


def test_too_many_values_are_refused(world):
    frame = squares()
    relabel(world, frame.loc[frame.index.repeat(8)].assign(**{"class": [f"id{i}" for i in range(36 * 8)]}))
    with pytest.raises(LabelError, match="too many different values"):
        init(world)


def test_names_that_differ_only_in_case_are_one_class(world):
    frame = squares()
    frame.loc[0, "class"] = frame.loc[0, "class"].upper()
    relabel(world, frame)
    with pytest.warns(LabelWarning, match="differ only in case or blanks are one class: CROPLAND as Cropland"):
        outcome = init(world)
    assert outcome.data["classes"] == squares()["class"].value_counts().to_dict()
    assert set(Job.load(world / "config.yaml").scheme.names) == set(CLASSES)


def test_names_of_one_letter_stored_in_two_ways_are_one_class(world):
    frame = squares()
    frame["class"] = frame["class"].replace("Cropland", "\u00c4cker")
    frame.loc[frame.index[frame["class"] == "\u00c4cker"][0], "class"] = "A\u0308cker"
    relabel(world, frame)
    with pytest.warns(LabelWarning, match="are one class"):
        outcome = init(world)
    assert outcome.data["classes"]["\u00c4cker"] == int((squares()["class"] == "Cropland").sum())


def test_bands_and_values_that_files_do_not_tell_are_hinted_at(world):
    counts = (reflectance() * 10000).astype("uint16")
    for values, names, hint in (
        (counts, ("eins", "zwei", "drei", "vier"), "what eins, zwei, drei, vier measure is not known: --bands"),
        (counts, BANDS, "values are counts as stored: --scale"),
        ((counts // 256).astype("uint8"), BANDS, ""),
        (reflectance(), BANDS, ""),
    ):
        write_scene(world / "scene.tif", values, names=names)
        assert "".join(init(world, overwrite=True).tables[0].notes).startswith(hint)
        assert bool(init(world, overwrite=True).tables[0].notes) == bool(hint)


def test_polygons_between_centres_are_counted_with_the_key(world):
    frame = squares()
    frame.loc[:24, "geometry"] = frame.geometry.buffer(-16)[:25]  # 8 m wide: less than a pixel
    relabel(world, frame)
    with pytest.warns(LabelWarning, match=r"25 of 36 polygons hold no pixel centre.*labels\.all_touched: true"):
        init(world)


def test_every_key_it_writes_is_explained_in_the_line_above(world):
    init(world)
    lines = (world / "config.yaml").read_text(encoding="utf-8").splitlines()
    keys = [number for number, line in enumerate(lines) if ":" in line and not line.strip().startswith(("#", "- "))]
    assert len(keys) > 12
    assert [lines[number] for number in keys if not lines[number - 1].strip().startswith("#")] == []


def test_paths_are_relative_so_that_the_folder_can_move(world):
    (world / "jobs").mkdir()
    init(world, output=world / "jobs" / "small.yaml")
    text = (world / "jobs" / "small.yaml").read_text(encoding="utf-8")
    assert str(world) not in text
    data = yaml.safe_load(text)
    assert data["scenes"][0]["path"] == "../scene.tif"
    assert (data["name"], data["output"]) == ("small", "small-run")
    assert load_config(world / "jobs" / "small.yaml").labels.path == str(world / "labels.gpkg")


def test_it_overwrites_only_when_asked(world):
    init(world)
    with pytest.raises(OutputError, match="--overwrite"):
        init(world)
    init(world, overwrite=True)


def test_what_it_writes_runs_as_it_is(world):
    init(world)
    run_job(world / "config.yaml", last="chips")
    assert (world / "landcover-run" / "chips" / "index.parquet").exists()


def test_defaults_that_it_does_not_show_are_those_of_the_schema(world):
    init(world)
    config = load_config(world / "config.yaml")
    plain = Config.model_validate({key: config.model_dump(mode="json")[key] for key in ("scenes", "labels", "classes")})
    assert config.training == plain.training
    assert config.map == plain.map


def test_scaling_nodata_and_masks_are_there_to_be_switched_on(world):
    init(world)
    text = (world / "config.yaml").read_text(encoding="utf-8")
    on = text.replace("#nodata: 0", "nodata: 7").replace("#offset: 0.0", "offset: -0.1").replace("#mask:", "mask:")
    (world / "config.yaml").write_text(on, encoding="utf-8")
    config = load_config(world / "config.yaml")
    assert (config.scenes[0].nodata, config.scenes[0].offset) == (7, -0.1)
    assert config.inputs.mask == ("nodata", "cloud", "shadow")


def test_chips_fit_small_scenes(world):
    job = Job.load(init(world).written[0])
    assert choose_chip_px([job.sources[0].grid]) == 24
    assert job.config.chips.size_px == 24
    assert job.config.split.buffer_m == 120


def test_labels_elsewhere_are_an_error_that_names_both_places(world):
    frame = squares()
    relabel(world, frame.set_geometry(frame.geometry.translate(1e6, 0)))
    with pytest.raises(LabelError, match=r"labels lie outside the scene.*lon 27"):
        init(world)


def test_burning_is_the_same_whatever_the_labels_crs(world):
    job = Job.load(init(world).written[0])
    relabel(world, squares().to_crs(4326))
    other = Job.load(world / "config.yaml")
    grid = job.sources[0].grid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here, there = burn(job.labels, grid), burn(other.labels, grid)
    assert (here.row == there.row).all()
    assert (here.code == there.code).all()


def test_bands_without_a_value_are_left_out_and_said(world):
    values = reflectance()
    values[1] = 0
    write_scene(world / "scene.tif", values, nodata=0)
    with pytest.warns(SceneWarning, match=f"band {BANDS[1]} is nodata everywhere; left out of inputs.bands"):
        init(world)
    assert load_config(world / "config.yaml").inputs.bands == (BANDS[0], *BANDS[2:])
    assert f"Not used: band {BANDS[1]} is nodata everywhere" in (world / "config.yaml").read_text()
    fix = rf"band {BANDS[1]} is nodata everywhere; leave them out of inputs\.bands"
    changes = [f"inputs.bands=[{', '.join(BANDS)}]"]
    (failed, *_) = check_job(world / "config.yaml", changes=changes, progress=no_progress).failed
    assert re.search(fix, failed)
    with pytest.raises(SceneError, match=fix):
        run_stages(world / "config.yaml", last="chips", force=False, overwrite=False, progress=no_progress,
                   changes=changes)  # fmt: skip


def test_check_repeats_what_was_set_for_it(world):
    init(world)
    config = world / "config.yaml"
    with patch("pipeline.workflow.check._check_cost"):
        outcome = check_job(config, changes=("map.memory=2 GB", "split.seed=3"), progress=no_progress)
    assert outcome.hint == f"next: landcover run {config} --set 'map.memory=2 GB' --set split.seed=3"
