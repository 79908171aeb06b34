"""What ``landcover view`` makes of what the user points at."""

from __future__ import annotations

import shutil

import pytest
import yaml

from pipeline.errors import ConfigError, InputError, LegendError, SceneWarning
from pipeline.workflow.view import check_basemap, gather_maps, open_viewer
from tests.fakes.small_world import settings
from tests.fakes.viewed_maps import LIBRARY_NOTES, write_world

pytestmark = LIBRARY_NOTES


@pytest.fixture
def run(tmp_path):
    """A run folder as ``landcover run`` leaves it, with two scenes."""
    folder = tmp_path / "job-run"
    for number, name in enumerate(("spring", "autumn")):
        write_world(folder, name, seed=number)
    write_config(folder, folder / "config.yaml")
    return folder


def write_config(folder, path, **more):
    scenes = [{"path": str(folder / f"{name}.tif"), "id": name} for name in ("spring", "autumn")]
    config = settings(name="job", output=str(folder), scenes=scenes, inputs={"bands": ["blue", "green", "red"]}, **more)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def test_a_run_folder_is_its_maps_with_their_scenes(run):
    maps = gather_maps([run])
    assert [item.name for item in maps] == ["autumn", "spring"]
    assert [item.scene.id for item in maps] == ["autumn", "spring"]
    assert maps[0].scene.band_names == ("blue", "green", "red")


def test_a_map_in_a_run_folder_knows_its_scene(run):
    (only,) = gather_maps([run / "maps" / "spring_lc.tif"])
    assert only.scene.id == "spring"


def test_a_configuration_stands_for_its_run(run, tmp_path):
    write_config(run, tmp_path / "own.yaml")
    assert len(gather_maps([tmp_path / "own.yaml"])) == 2


def test_a_run_without_its_configuration_has_no_scenes(run):
    (run / "config.yaml").unlink()
    assert all(item.scene is None for item in gather_maps([run]))


def test_bare_maps_have_no_scene_unless_one_is_named(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in ("spring", "autumn"):
        shutil.copy(run / "maps" / f"{name}_lc.tif", tmp_path / "elsewhere")
    bare = gather_maps([tmp_path / "elsewhere"])
    assert [item.scene for item in bare] == [None, None]
    assert [[layer.id for layer in item.layers] for item in bare] == [["lc"], ["lc"]]
    files = [tmp_path / "elsewhere" / f"{name}_lc.tif" for name in ("spring", "autumn")]
    one = gather_maps(files, scenes=[str(run / "spring.tif")])
    assert [item.scene.id for item in one] == ["spring", "spring"]
    each = gather_maps(files, scenes=[str(run / "spring.tif"), str(run / "autumn.tif")])
    assert [item.scene.id for item in each] == ["spring", "autumn"]
    with pytest.raises(ConfigError, match="--scene"):
        gather_maps(files[:1], scenes=["a", "b"])


def test_a_scene_that_is_gone_is_a_warning_maps_are_shown(run):
    (run / "spring.tif").unlink()
    with pytest.warns(SceneWarning, match=r"spring\.tif"):
        maps = gather_maps([run])
    assert [item.scene for item in maps] == [None, None]


def test_maps_of_one_name_are_told_apart_by_their_run(run, tmp_path):
    shutil.copytree(run, tmp_path / "other-run")
    (tmp_path / "other-run" / "config.yaml").unlink()
    maps = gather_maps([run / "maps" / "spring_lc.tif", tmp_path / "other-run" / "maps" / "spring_lc.tif"])
    assert [item.name for item in maps] == ["job", "other-run"]
    four = gather_maps([run, tmp_path / "other-run"])
    assert [item.name for item in four] == ["job: autumn", "job: spring", "other-run: autumn", "other-run: spring"]
    twice = gather_maps([run / "maps" / "spring_lc.tif"] * 2)
    assert len({item.name for item in twice}) == 2


def test_what_is_no_map_is_said(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no maps in the folder"):
        gather_maps([tmp_path / "empty"])
    with pytest.raises(InputError, match="cannot open"):
        gather_maps([tmp_path / "none.tif"])
    with pytest.raises(LegendError, match="what its codes mean"):
        gather_maps([run / "maps" / "spring_conf.tif"])


@pytest.mark.parametrize(
    "url",
    [
        "https://tile.example.org/1/2/3.png", "ftp://tile.example.org/{z}/{x}/{y}", "tile/{z}/{x}/{y}",
        "https://a.example; script-src */{z}/{x}/{y}", "https://user:word@a.example/{z}/{x}/{y}",
        "https://{s}.example.org/{z}/{x}/{y}",
    ],
)  # fmt: skip
def test_a_basemap_is_an_address_of_tiles(url):
    with pytest.raises(ConfigError, match="--basemap"):
        check_basemap(url, None)


def test_a_basemap_names_its_host_where_nobody_else_is_named():
    url = "https://tile.example.org/{z}/{x}/{y}.png"
    assert check_basemap(None, None) is None
    assert check_basemap(url, None).credit == "tile.example.org"
    assert check_basemap(url, "Someone").credit == "Someone"


def test_the_outcome_has_the_address(run):
    server, outcome = open_viewer([run])
    assert outcome.data["url"] == server.url
    assert server.url in outcome.summary
    assert server.url.startswith(f"http://127.0.0.1:{outcome.data['port']}/")
    server.close()
