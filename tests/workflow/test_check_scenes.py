"""What ``check`` says of scenes: stacks, composites, STAC items and layers are looked at as single scenes are."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipeline.config import load_config
from pipeline.errors import SceneError, SceneWarning
from pipeline.scenes.ledger import source_ledger
from pipeline.scenes.opening import open_scene
from pipeline.scenes.survey import look_at_scene, warn_of_masks
from pipeline.workflow.check import check_job, decisions_table, scene_table
from pipeline.workflow.inputs import open_sources, unlike
from pipeline.workflow.outcome import no_progress
from tests.fakes.landsat import Landsat, write_landsat
from tests.fakes.landscape import reflectance as landscape
from tests.fakes.rasters import TRANSFORM, write_raster
from tests.fakes.safe import Safe, write_safe
from tests.fakes.small_world import reflectance, write_labels, write_scene, write_settings
from tests.fakes.stac_items import earth_search_item, field_of, planetary_computer_item
from tests.fakes.stac_server import serve

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Source

DAYS = ("2020-04-01", "2020-06-01", "2020-08-01")


@pytest.fixture
def no_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.workflow import costs
    from pipeline.workflow.costs import StageCost

    monkeypatch.setattr(costs, "estimate_stages", lambda _job, _encoder: (StageCost("all", 1.0, 1, 1),))


def season(folder: Path, *, left_in: int) -> list[dict[str, Any]]:
    """Three dates; in one of them the offset was left in."""
    items = []
    for number, day in enumerate(DAYS):
        values = reflectance(seed=number)
        if number == left_in:
            values = values * np.float32(0.2) + np.float32(0.1)
        write_scene(folder / f"s{number}.tif", values)
        items.append({"path": f"s{number}.tif", "acquired_utc": f"{day}T10:00:00Z"})
    return items


def sources(folder: Path, **changes: Any) -> tuple[Source, ...]:
    return open_sources(load_config(write_settings(folder, **changes)))


@pytest.mark.parametrize("time", ["stack", "median", "medoid", "greenest"])
def test_an_offset_left_in_one_of_several_dates_is_noticed(tmp_path: Path, time: str, no_estimates: None) -> None:
    write_labels(tmp_path / "labels.gpkg")
    config = write_settings(tmp_path, scenes=season(tmp_path, left_in=1), inputs={"time": time})
    with pytest.warns(SceneWarning, match=r"s1\.tif: offset looks left in: no band is darker than 0\.1"):
        outcome = check_job(config, progress=no_progress)
    (scenes,) = [table for table in outcome.tables if table.title == "scenes"]
    assert scenes.rows[0][-1] == "left in (1 of 3)"
    (scene,) = outcome.data["scenes"]
    states = {name: item["offset_check"]["state"] for name, item in scene["ledger"]["dates_measured"].items()}
    assert states == {"s0": "plausible", "s1": "left in", "s2": "plausible"}
    assert {band["unit"] for band in scene["values"]} == {"reflectance"}


def test_decisions_of_all_dates_are_in_one_line(tmp_path: Path) -> None:
    early, late = (
        write_safe(tmp_path, Safe(baseline=b, date=f"{day}T101559"))
        for b, day in (("02.14", 20180625), ("05.10", 20230625))
    )
    (stack,) = sources(
        tmp_path, scenes=[{"path": early.name}, {"path": late.name}], inputs={"time": "stack", "bands": ["red", "nir"]}
    )
    (row,) = decisions_table([look_at_scene(stack)]).rows
    assert row[1] == "sentinel-2 L2A 02.14, sentinel-2 L2A 05.10"
    assert "x 0.0001 + 0 (MTD_MSIL2A.xml: BOA_QUANTIFICATION_VALUE 10000, no BOA_ADD_OFFSET)" in row[2]
    assert "x 0.0001 + -0.1 (MTD_MSIL2A.xml: BOA_QUANTIFICATION_VALUE 10000, BOA_ADD_OFFSET -1000)" in row[2]
    assert row[3] == "SCL"


def test_bands_of_one_scale_are_told_together(tmp_path: Path) -> None:
    product = write_landsat(tmp_path, Landsat())
    bands = ["blue", "green", "red", "nir08", "lwir11"]
    (scene,) = sources(tmp_path, scenes=[{"path": product.name}], inputs={"bands": bands})
    (row,) = decisions_table([look_at_scene(scene)]).rows
    assert row[2] == "4 bands x 2.75e-05 + -0.2 (MTL); lwir11 x 0.00341802 + 149 (MTL)"


def test_a_file_whose_bands_are_dates_is_checked_by_its_dates(tmp_path: Path, no_estimates: None) -> None:
    write_raster(tmp_path / "ndvi.tif", np.random.default_rng(0).random((3, 96, 96), dtype=np.float32))
    write_labels(tmp_path / "labels.gpkg")
    item = {"path": "ndvi.tif", "bands": ["ndvi"], "dates": [f"{day}T00:00:00Z" for day in DAYS]}
    config = write_settings(tmp_path, scenes=[item], inputs={"time": "stack"})
    outcome = check_job(config, progress=no_progress)
    assert outcome.failed == ()
    assert outcome.data["scenes"][0]["bands_used"] == [f"ndvi_{day}" for day in DAYS]
    assert outcome.data["scenes"][0]["bands_found"] == ["ndvi"]
    short = write_settings(tmp_path, scenes=[item | {"dates": item["dates"][:2]}], inputs={"time": "stack"})
    (failed,) = check_job(short, progress=no_progress).failed
    assert failed == f"{tmp_path / 'ndvi.tif'}: number of dates; got 2; expected 3 bands"


def test_what_masks_a_scene_is_named_with_its_share(tmp_path: Path) -> None:
    cloudy = np.full((60, 60), 9, np.uint8)
    cloudy[:15] = 4
    with pytest.warns(SceneWarning, match=r"75% of the pixels looked at have no data or are masked \(SCL 75%\)$"):
        look_at_scene(open_scene(write_safe(tmp_path / "a", Safe(scl=cloudy))).select(["red", "nir"]))
    cloudy[:] = 9
    with pytest.raises(SceneError, match=r"no pixel of the scene can be used; got .* masked everywhere \(SCL 100%\);"):
        look_at_scene(open_scene(write_safe(tmp_path / "b", Safe(scl=cloudy))).select(["red", "nir"]))


def test_run_says_what_masks_take_of_a_scene(tmp_path: Path) -> None:
    cloudy = np.full((60, 60), 4, np.uint8)
    source = open_scene(write_safe(tmp_path / "a", Safe(scl=cloudy))).select(["red", "nir"])
    warn_of_masks(source, source_ledger(source))
    cloudy[:15] = 9
    source = open_scene(write_safe(tmp_path / "b", Safe(scl=cloudy))).select(["red", "nir"])
    with pytest.warns(SceneWarning, match=r"masked, of the pixels looked at \(SCL 25%\): neither learned from"):
        warn_of_masks(source, source_ledger(source))


def test_a_layer_with_gaps_is_in_the_ledger_elsewhere_an_error(tmp_path: Path, no_estimates: None) -> None:
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "labels.gpkg")
    heights = np.full((96, 96), 300, np.float32)
    heights[:24] = -1
    write_raster(tmp_path / "dem.tif", heights, nodata=-1)
    config = write_settings(tmp_path, inputs={"layers": [{"path": "dem.tif", "kind": "dem", "bands": ["elevation"]}]})
    with pytest.warns(SceneWarning, match=r"dem\.tif: layer has no value for 25% of the usable pixels of scene scene"):
        outcome = check_job(config, progress=no_progress)
    assert outcome.data["scenes"][0]["ledger"]["layers_without_data"] == {"dem": 0.25}
    write_raster(tmp_path / "dem.tif", heights, transform=TRANSFORM @ TRANSFORM.translation(9000, 0))
    (failed,) = check_job(config, progress=no_progress).failed
    assert "dem.tif: layer does not cover scene scene; got EPSG:32633" in failed


def test_stac_scenes_are_measured_and_tell_a_wrong_offset(tmp_path: Path) -> None:
    """Some Earth Search items say that the offset is out of the DN though it is not, and the reverse."""
    dark = field_of(lambda name, x, y: 0.3 * landscape(name, x, y))
    with serve(tmp_path / "served") as fake:
        right = earth_search_item(fake.folder, fake.file_url, field=dark)
        left_in = planetary_computer_item(fake.folder, fake.file_url, name="lying", field=dark)
        left_in["properties"]["earthsearch:boa_offset_applied"] = True
        twice = earth_search_item(fake.folder, fake.file_url, name="S2B_twice", field=dark)
        twice["properties"]["earthsearch:boa_offset_applied"] = False
        paths = {}
        for name, item in (("right", right), ("left_in", left_in), ("twice", twice)):
            paths[name] = tmp_path / f"{name}.json"
            paths[name].write_text(json.dumps(item))
        facts = [look_at_scene(one) for one in sources(tmp_path, scenes=[{"path": "right.json"}])]
        (ledger,) = (item.ledger for item in facts)
        assert (ledger["mirror"], ledger["baseline"], ledger["level"]) == ("earth-search", "05.11", "L2A")
        assert ledger["offset_check"]["state"] == "plausible"  # type: ignore[index]
        (share,) = ledger["masked_share"].values()  # type: ignore[attr-defined]
        assert share == pytest.approx(200 / 120**2, abs=1e-3)
        assert scene_table(facts).rows[0][-1] == "plausible"
        for name, state in (("left_in", "left in"), ("twice", "applied twice")):
            (scene,) = sources(tmp_path, scenes=[{"path": f"{name}.json"}])
            with pytest.warns(SceneWarning, match=rf"{name}\.json: offset looks {state}.*set scene\.offset to"):
                look_at_scene(scene)


def test_scenes_of_mixed_treatment_are_refused_by_mirrors_too(tmp_path: Path) -> None:
    top = write_safe(tmp_path, Safe(level="L1C"))
    with serve(tmp_path / "served") as fake:
        item = earth_search_item(fake.folder, fake.file_url)
        (tmp_path / "item.json").write_text(json.dumps(item))
        other = planetary_computer_item(fake.folder, fake.file_url)
        (tmp_path / "other.json").write_text(json.dumps(other))
        inputs: dict[str, Any] = {"bands": ["red", "nir"]}
        mixed = [{"path": "item.json"}, {"path": top.name}]
        with pytest.raises(SceneError) as caught:
            sources(tmp_path, scenes=mixed, inputs=inputs)
        assert str(caught.value) == (
            f"scenes of one run are treated differently; got {item['id']}: surface reflectance; "
            f"{Safe(level='L1C').name}: top-of-atmosphere reflectance; expected one product level and scaling; "
            "bring them to one product level and scaling, or ask for mixed scenes by allow_mixed"
        )
        assert len(sources(tmp_path, scenes=mixed, inputs=inputs | {"allow_mixed": True})) == 2
        # What one mirror has taken out and the other left in is reflectance all the same once it is read.
        assert len(sources(tmp_path, scenes=[{"path": "item.json"}, {"path": "other.json"}], inputs=inputs)) == 2


def test_scenes_of_one_file_name_are_told_apart_by_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "2020" / "may").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "2020" / "may")
    assert unlike(["s", "s"], paths=["s.tif", "../june/s.tif"]) == ["may_s", "june_s"]
    years = ["s.tif", "../../2021/may/s.tif", "../june/s.tif"]
    assert unlike(["s", "s", "s"], paths=years) == ["2020_may_s", "2021_may_s", "june_s"]
    assert unlike(["s", "s", "t"], paths=["", "s.tif", "t.tif"]) == ["s", "may_s", "t"]
    assert unlike(["s", "s"], paths=["s.tif", "./s.tif"]) == ["s", "s"]
    with pytest.warns(SceneWarning, match="files are called after"):
        assert unlike(["s", "s"], paths=["../a,b/s.tif", "s.tif"]) == ["a_b_s", "may_s"]


@pytest.mark.parametrize(("codes", "words"), [([0, 1, 3], "has 3 values"), ([7], "is 7 everywhere")])
def test_a_band_of_a_few_codes_is_said(tmp_path, codes, words):
    rng = np.random.default_rng(0)
    values = rng.integers(100, 9000, (3, 64, 64)).astype(np.uint16)
    values[2] = rng.choice(codes, (64, 64))
    path = write_raster(tmp_path / "stack.tif", values, transform=TRANSFORM)
    with pytest.warns(SceneWarning, match=words):
        look_at_scene(open_scene(path))


def test_bands_of_flat_fields_are_no_codes(tmp_path):
    values = np.repeat(np.array([[[10, 500]], [[300, 20]]], np.uint16), 32, axis=2).repeat(64, axis=1)
    path = write_raster(tmp_path / "fields.tif", values, transform=TRANSFORM)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SceneWarning)
        look_at_scene(open_scene(path))
