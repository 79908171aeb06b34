"""``landcover search`` from the command line, against a STAC API on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml

from pipeline.cli import main
from pipeline.errors import ProductError
from pipeline.scenes import remote
from pipeline.scenes.opening import open_scene
from pipeline.workflow.search import search_scenes
from tests.fakes.stac_items import EPSG, LEFT, TOP, earth_search_item, footprint
from tests.fakes.stac_server import FakeStac, serve

BANDS = ("red", "nir")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("stac")) as fake:
        item = earth_search_item(fake.folder, fake.file_url)
        for name, day, cloud in (
            ("june", "2025-06-01", 4.0),
            ("july", "2025-07-01", 9.0),
            ("cloudy", "2025-06-11", 70.0),
        ):
            properties = item["properties"] | {"datetime": f"{day}T09:50:29Z", "eo:cloud_cover": cloud}
            fake.items.append(item | {"id": name, "properties": properties})
        yield fake


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(remote, "RETRY_S", 0.01)


def search(server: FakeStac, *more: str) -> int:
    area = ",".join(str(side) for side in footprint()[0])
    options = ("-c", "sentinel-2-l2a", "--area", area, "--dates", "2025-05-01/2025-07-31")
    return main(["search", server.url, *options, *more])


def test_scenes_are_listed_with_date_and_clouds(server, capsys):
    assert search(server) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 scenes found")
    assert "cloudy" not in out
    assert search(server, "--max-cloud", "100", "--limit", "5", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [scene["id"] for scene in document["scenes"]] == ["june", "cloudy", "july"]
    assert document["scenes"][0] == {"id": "june", "date": "2025-06-01", "clouds": "4 %"}


def test_a_download_is_resumed_and_becomes_a_configuration(server, tmp_path, capsys):
    down = tmp_path / "down"
    options = ("--download", str(down), "--bands", ",".join(BANDS), "--json")
    assert search(server, "--download", str(down), "--bands", "red", "--quiet") == 0
    assert (down / "june" / "red.tif").exists()
    kept = (down / "june" / "red.tif").stat().st_mtime_ns
    assert search(server, *options) == 0
    folders = [Path(path) for path in json.loads(capsys.readouterr().out)["written"]]
    assert folders == [down / "june", down / "july"]
    assert {path.name for path in folders[0].glob("*.tif")} == {"red.tif", "nir.tif", "scl.tif"}
    assert (down / "june" / "red.tif").stat().st_mtime_ns == kept
    config = tmp_path / "config.yaml"
    labels = write_labels(tmp_path / "labels.gpkg")
    scenes = [part for folder in folders for part in ("--scene", str(folder))]
    assert main(["init", *scenes, "--labels", str(labels), "--field", "class", "-o", str(config)]) == 0
    written = yaml.safe_load(config.read_text())
    assert [scene["id"] for scene in written["scenes"]] == ["june", "july"]
    assert written["inputs"]["bands"] == ["red", "nir"]


def area_of(item: dict[str, Any]) -> str:
    return ",".join(str(side) for side in item["bbox"])


def test_a_killed_download_is_taken_up_by_the_same_command(tmp_path, capsys):
    with serve(tmp_path / "served") as fake:
        item = earth_search_item(fake.folder, fake.file_url)
        fake.items.append(item | {"properties": item["properties"] | {"datetime": "2025-06-01T09:50:29Z"}})
        down = tmp_path / "down"
        folder = down / item["id"]
        arguments = ["search", fake.url, "-c", "sentinel-2-l2a", "--area", area_of(item), "--dates", "2025-06-01"]
        arguments += ["--bands", "red,nir", "--download", str(down)]
        slow, quick = (f"/data/{item['id']}/{name}.tif" for name in ("B08", "B04"))
        fake.slow_s[slow] = 0.7
        code = "import sys; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
        with subprocess.Popen([sys.executable, "-c", code, *arguments]) as process:
            while process.poll() is None and not list(folder.glob(".nir.*.part.tif")):
                time.sleep(0.02)
            process.kill()
        assert {path.name for path in folder.glob("[!.]*")} == {"red.tif", "download.json"}
        kept, asked = (folder / "red.tif").stat().st_mtime_ns, fake.hits[quick]
        with pytest.raises(ProductError, match="download is not complete; run the same landcover search again"):
            open_scene(folder)
        fake.slow_s.clear()
        assert main(arguments) == 0
        assert (folder / "red.tif").stat().st_mtime_ns == kept
        assert fake.hits[quick] <= asked + 2  # its header, to know that it is the same
        assert {path.name for path in folder.iterdir()} == {
            "red.tif", "nir.tif", "scl.tif", "item.json", "download.json",
        }  # fmt: skip
        assert open_scene(folder).band_names == ("red", "nir")
        with rasterio.open(folder / "nir.tif") as copy, rasterio.open(fake.folder / item["id"] / "B08.tif") as whole:
            np.testing.assert_array_equal(copy.read(1), whole.read(1))


def test_progress_counts_blocks_and_scenes_to_the_end(server, tmp_path):
    seen: list[tuple[str, int, int]] = []
    search_scenes(
        server.url, collections=["sentinel-2-l2a"], area=area_of(server.items[0]), dates="2025-05-01/2025-07-31",
        max_cloud=20, limit=10, bands=BANDS, download=tmp_path, progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert [step for step in seen if step[0] == "scenes"] == [("scenes", n, 2) for n in (0, 1, 1, 2)]
    for name in ("june", "july"):
        steps = [done for what, done, total in seen if what == f"downloading {name}" and total == 3]
        assert sorted(set(steps)) == [1, 2, 3]
        assert steps == sorted(steps)


def test_a_list_that_was_cut_off_says_so(server, capsys):
    assert search(server, "--limit", "1") == 0
    assert capsys.readouterr().out.startswith("1 scene found, as many as --limit allows")


def test_an_asset_that_is_gone_is_one_line_and_leaves_no_scene(tmp_path, capsys):
    with serve(tmp_path / "served") as fake:
        item = earth_search_item(fake.folder, fake.file_url)
        item["assets"]["nir"]["href"] = fake.file_url("nowhere.tif")
        fake.items.append(item | {"properties": item["properties"] | {"datetime": "2025-06-01T09:50:29Z"}})
        assert search(fake, "--download", str(tmp_path / "down"), "--bands", "red,nir") == 2
    err = capsys.readouterr().err
    assert err.startswith("landcover: error: ")
    assert "nowhere.tif: asset nir cannot be downloaded" in err
    assert err.count("\n") == 1
    left = {path.name for path in (tmp_path / "down").rglob("*") if path.is_file()}
    assert left <= {"red.tif", "scl.tif", "download.json"}


def write_labels(path: Path) -> Path:
    boxes = [shapely.box(LEFT + x, TOP - y - 100, LEFT + x + 100, TOP - y) for x in (200, 1200) for y in (900, 1900)]
    frame = gpd.GeoDataFrame({"class": ["wood", "water"] * 2}, geometry=boxes, crs=f"EPSG:{EPSG}")
    frame.to_file(path)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--area", "1,2,x,4"), "option --area"),
        (("--area", "none.gpkg"), "area of a search cannot be read"),
        (("--dates", "yesterday"), "option --dates"),
        (("--dates", "2025-07-01/2025-06-01"), "dates of a search"),
    ],
)
def test_areas_and_dates_that_make_no_sense_are_one_line(server, capsys, options, message):
    assert search(server, *options) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_an_api_that_does_not_answer_is_one_line(server, capsys):
    assert main(["search", f"{server.url}/none", "-c", "x", "--area", "1,2,3,4", "--dates", "2025-07-01"]) == 2
    err = capsys.readouterr().err
    assert "STAC API cannot be searched" in err
    assert err.count("\n") == 1
