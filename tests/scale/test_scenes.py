"""Many scenes in one process: lists, broken ones, and going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.cli.entry import main
from pipeline.errors import ConfigError, OutputError
from pipeline.inference.stream import Writing
from pipeline.workflow import scene_maps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scale.conftest import World


def test_one_broken_scene_does_not_stop_the_others(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "c"):
        world.add_scene(name, height=60, width=50)
    (world.scenes / "b.tif").write_bytes(b"not a raster")
    command = ["predict", "--model", str(world.model), "--scenes", str(world.scenes), "-o", str(world.folder / "out")]
    assert main([*command, "--engine", "torch", "--dtype", "float32"]) == 3
    out, err = capsys.readouterr()
    assert "2 scenes mapped, 1 failed" in out
    assert err.splitlines()[-1].count("b.tif: ") == 1
    assert [line for line in err.splitlines() if "error" in line] == [err.splitlines()[-1]]
    assert "b.tif" in err.splitlines()[-1]
    assert {path.name for path in (world.folder / "out").glob("*_lc.tif")} == {"a_lc.tif", "c_lc.tif"}


def test_a_refused_scene_leaves_no_folder_and_no_empty_table(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.folder / "b.tif").write_bytes(b"not a raster")
    command = ["predict", "--model", str(world.model), "-o", str(world.folder / "out")]
    assert main([*command, "--scene", str(world.folder / "b.tif")]) == 2
    assert not (world.folder / "out").exists()
    assert main([*command, "--scene", str(world.folder / "b.tif"), "--scene", str(world.folder / "c.tif")]) == 3
    assert capsys.readouterr().out == "0 scenes mapped, 2 failed\n"


def test_a_mapped_scene_is_unchanged_and_has_no_speed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    scene = world.add_scene("a", height=60, width=50)
    command = ["predict", "--model", str(world.model), "--scene", str(scene), "-o", str(world.folder / "out")]
    said = []
    for _ in range(2):
        assert main([*command, "--engine", "torch", "--dtype", "float32"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0].startswith("1 scene mapped\n")
    assert said[1].startswith("1 scene unchanged\n")
    assert ["Mpx/s" in text for text in said] == [True, False]


def test_the_same_command_maps_only_what_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        world.add_scene(name, height=60, width=50)
    world.predict("out")
    first = world.products("out")
    times = {path: path.stat().st_mtime_ns for path in (world.folder / "out").glob("*.tif")}
    (world.folder / "out" / "b_conf.tif").unlink()
    with pytest.raises(OutputError, match="the file exists"):
        raise_first(world.predict("out"))
    world.predict("out", overwrite=True)
    assert world.products("out") == first
    kept = world.folder / "out" / "a_lc.tif"
    assert kept.stat().st_mtime_ns == times[kept]


def raise_first(outcome: object) -> None:
    raise OutputError(outcome.failed[0])  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", ["rows", "products"])
def test_an_interrupted_command_continues(world: World, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    for name in ("a", "b"):
        world.add_scene(name, height=60, width=50)
    world.predict("whole")
    with monkeypatch.context() as patch:
        if stage == "rows":
            real, seen = Writing.put, []

            def put(self: Writing, *args: object) -> None:
                seen.append(1)
                if len(seen) > 1:
                    raise KeyboardInterrupt
                real(self, *args)

            patch.setattr(Writing, "put", put)
        else:

            def stop(*args: object, **named: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(scene_maps, "write_percent", stop)
        with pytest.raises(KeyboardInterrupt):
            world.predict("cut")
    outcome = world.predict("cut")
    assert outcome.failed == ()
    assert world.products("cut") == world.products("whole")


def test_two_scenes_of_one_name_are_told(world: World) -> None:
    path = world.add_scene("a", height=60, width=50)
    listed = world.folder / "list.txt"
    listed.write_text(f"{path}\n{path}\n")
    outcome = world.predict("out", listed=listed)
    assert [line for line in outcome.failed if "used twice" in line] == list(outcome.failed)
    assert len(outcome.failed) == 1


def test_files_of_one_name_in_two_folders_are_two_scenes(world: World) -> None:
    path = world.add_scene("a", height=60, width=50)
    second = world.folder / "second" / path.name
    second.parent.mkdir()
    second.write_bytes(path.read_bytes())
    listed = world.folder / "list.txt"
    listed.write_text(f"{path}\n{second}\n")
    assert world.predict("out", listed=listed).failed == ()
    assert (world.folder / "out" / f"second_{path.stem}_lc.tif").exists()


def test_workers_need_a_scheduler_that_answers(world: World, monkeypatch) -> None:
    world.add_scene("a", height=60, width=50)
    pytest.importorskip("distributed")
    monkeypatch.setattr("pipeline.scale.cluster.CONNECT_S", "1s")
    with pytest.raises(ConfigError, match="does not answer"):
        world.predict("out", dask="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match="local:4"):
        world.predict("out", dask="local:0")


def test_a_missing_dask_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add_scene("a", height=60, width=50)
    monkeypatch.setattr("pipeline.scale.cluster.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"landcover-pipeline\[scale\]"):
        world.predict("out", dask="local")


def test_maps_of_two_zones_need_a_chosen_grid(world: World, tmp_path: Path) -> None:
    import rasterio
    from rasterio.crs import CRS

    for number, name in enumerate(("east", "west")):
        path = world.add_scene(name, height=60, width=50)
        with rasterio.open(path, "r+") as dataset:
            dataset.crs = CRS.from_epsg(32633 + number)
    outcome = world.predict("out", mosaic="confidence", mosaic_crs="EPSG:3035", mosaic_pixel=20.0)
    assert outcome.failed == ()
    with rasterio.open(world.folder / "out" / "mosaic_lc.tif") as mosaic:
        assert (mosaic.crs.to_epsg(), mosaic.res) == (3035, (20.0, 20.0))
    with pytest.raises(ConfigError, match="mosaic_crs"):
        world.predict("out", mosaic="confidence", mosaic_crs="nowhere", overwrite=True)
