"""Finding scenes in a STAC API and downloading a window of them, both on loopback."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from shapely.geometry import Polygon

from pipeline.errors import ConfigError, OutputError, ProductError, SceneWarning
from pipeline.grid import Window
from pipeline.scenes import remote
from pipeline.scenes.opening import open_scene
from pipeline.scenes.reader import open_reader
from pipeline.scenes.search import area_shape, download, find_scenes
from pipeline.scenes.stac import open_item
from tests.fakes.stac_items import EPSG, LEFT, TOP, earth_search_item, footprint, planetary_computer_item
from tests.fakes.stac_server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.stac_server import FakeStac

BANDS = ["red", "nir", "swir16"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeStac]:
    with serve(tmp_path_factory.mktemp("stac")) as fake:
        template = earth_search_item(fake.folder, fake.file_url)
        for number, (day, cloud) in enumerate(
            (("2025-05-01", 3.0), ("2025-03-02", 40.0), ("2025-04-01", 10.0), ("2025-07-01", 80.0), ("2024-03-02", 1.0))
        ):
            when = {"datetime": f"{day}T09:50:29Z", "eo:cloud_cover": cloud}
            properties = template["properties"] | when
            fake.items.append(template | {"id": f"scene{number}", "properties": properties})
        yield fake


@pytest.fixture
def item(server: FakeStac) -> dict[str, Any]:
    return server.items[0]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, server: FakeStac) -> Iterator[None]:
    monkeypatch.setattr(remote, "RETRY_S", 0.01)
    yield
    server.gone.clear()
    server.flaky.clear()


def find(server: FakeStac, **options: Any) -> list[Any]:
    west, south, east, north = footprint()[0]
    settings: dict[str, Any] = {
        "api": server.url,
        "collection": "sentinel-2-l2a",
        "start": date(2025, 1, 1),
        "end": date(2025, 12, 31),
    }
    return find_scenes((west, south, east, north), **settings | options)


def test_scenes_are_found_by_area_dates_clouds_in_order(server: FakeStac) -> None:
    assert [scene.id for scene in find(server)] == ["scene1", "scene2", "scene0", "scene3"]  # over two pages
    found = find(server, max_cloud_percent=20)
    assert [scene.id for scene in found] == ["scene2", "scene0"]
    assert found[0].acquired_utc == datetime(2025, 4, 1, 9, 50, 29, tzinfo=UTC)
    assert found[0].cloud_percent == 10
    assert found[0].covered_frac == pytest.approx(1)
    assert server.searches[-1]["query"] == {"eo:cloud_cover": {"lte": 20}}
    assert [scene.id for scene in find(server, end=date(2025, 3, 2))] == ["scene1"]
    assert find(server, collection="landsat-c2-l2") == []


def test_an_area_may_be_a_polygon_file_in_any_crs(server: FakeStac, tmp_path: Path) -> None:
    corner = Polygon([(LEFT - 900, TOP), (LEFT + 900, TOP), (LEFT + 900, TOP - 900), (LEFT - 900, TOP - 900)])
    gpd.GeoDataFrame(geometry=[corner], crs=EPSG).to_file(tmp_path / "area.gpkg")
    options = {"api": server.url, "collection": "sentinel-2-l2a", "start": date(2025, 4, 1), "end": date(2025, 4, 2)}
    (found,) = find_scenes(tmp_path / "area.gpkg", **options)
    assert found.covered_frac == pytest.approx(0.5, abs=0.02)


def test_searches_that_make_no_sense_are_refused(server: FakeStac, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dates of a search"):
        find(server, start=date(2026, 1, 1))
    with pytest.raises(ConfigError, match="west < east"):
        area_shape((500_000.0, 0.0, 600_000.0, 1.0))
    with pytest.raises(ConfigError, match="area of a search cannot be read"):
        area_shape(tmp_path / "none.gpkg")
    with pytest.raises(ProductError, match="STAC API cannot be searched"):
        find(server, api=f"{server.url}/elsewhere")


def test_a_missing_extra_is_named(server: FakeStac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystac_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'landcover-pipeline\[stac\]'"):
        find(server)


def test_a_downloaded_window_reads_as_that_of_the_original(
    server: FakeStac, item: dict[str, Any], tmp_path: Path
) -> None:
    west, south, east, north = footprint()[0]
    area = (
        west + 0.3 * (east - west),
        south + 0.3 * (north - south),
        west + 0.6 * (east - west),
        north - 0.1 * (north - south),
    )
    seen: list[tuple[str, int, int]] = []
    folder = download(item, tmp_path, area=area, bands=BANDS, progress=lambda *step: seen.append(step))
    assert sorted(file.name for file in folder.iterdir()) == [
        "download.json",
        "item.json",
        "nir.tif",
        "red.tif",
        "scl.tif",
        "swir16.tif",
    ]
    assert seen[-1][1] == seen[-1][2] == 4
    local, original = open_scene(folder), open_item(item, bands=BANDS)
    assert local.band_names == tuple(BANDS)
    assert (local.mirror, local.bands[0].offset) == ("earth-search", 0.0)
    left, _, _, top = local.grid.bounds
    row, col = original.grid.rowcol(left + 1, top - 1)
    with open_reader(local) as one, open_reader(original) as two:
        a = one.read(local.grid.window)
        b = two.read(Window(row, col, *local.grid.shape))
    inner = (slice(2, -2), slice(2, -2))  # whole pixels of 20 m end elsewhere than those of 10 m
    np.testing.assert_array_equal(a.valid[inner], b.valid[inner])
    assert not a.valid.all()
    np.testing.assert_allclose(a.values[:, *inner], b.values[:, *inner], atol=1.01e-4)
    assert np.array_equal(a.band("red"), b.band("red"))


def test_complete_files_are_not_fetched_again_damaged_are(
    server: FakeStac, item: dict[str, Any], tmp_path: Path
) -> None:
    folder = download(item, tmp_path, bands=BANDS)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    stamp = (folder / "nir.tif").stat().st_mtime_ns
    (folder / "red.tif").write_bytes(before["red.tif"][:5000])
    (folder / "swir16.tif").unlink()
    assert download(item, tmp_path, bands=BANDS) == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert (folder / "nir.tif").stat().st_mtime_ns == stamp


def test_another_window_is_fetched_anew(item: dict[str, Any], tmp_path: Path) -> None:
    west, south, east, north = footprint()[0]
    folder = download(item, tmp_path, bands=["red"])
    with rasterio.open(folder / "red.tif") as dataset:
        assert dataset.shape == (240, 240)
    download(item, tmp_path, bands=["red"], area=(west, south, (west + east) / 2, north))
    with rasterio.open(folder / "red.tif") as dataset:
        assert dataset.shape[1] < 140


def test_an_asset_that_is_gone_leaves_nothing_half_written(server: FakeStac, tmp_path: Path) -> None:
    item = earth_search_item(server.folder, server.file_url, name="S2B_cut")
    body = server.folder / "S2B_cut" / "B11.tif"
    whole = body.read_bytes()
    body.write_bytes(whole[: len(whole) * 2 // 3])  # the header is there, the pixels end early
    with pytest.raises(ProductError, match=r"B11\.tif: asset swir16 cannot be downloaded; .*run it again"):
        download(item, tmp_path, bands=BANDS)
    assert sorted(file.name for file in (tmp_path / "S2B_cut").iterdir()) == ["download.json", "nir.tif", "red.tif"]
    (server.folder / "S2B_back").mkdir()
    (server.folder / "S2B_back" / "B11.tif").write_bytes(whole)
    item["assets"]["swir16"]["href"] = server.file_url("S2B_back/B11.tif")
    assert (download(item, tmp_path, bands=BANDS) / "item.json").is_file()


def test_a_server_that_stumbles_is_asked_again(server: FakeStac, tmp_path: Path) -> None:
    flaky = planetary_computer_item(server.folder, server.file_url, name="S2B_flaky")
    server.flaky["/data/S2B_flaky/B04.tif"] = 2
    folder = download(flaky, tmp_path, bands=["red"])
    scene = open_scene(folder)
    assert scene.mirror == "planetary-computer"
    assert scene.bands[0].offset == -0.1


def test_a_folder_or_an_area_that_cannot_be_is_told(item: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="output folder cannot be written; got Not a directory"):
        download(item, tmp_path / "file", bands=["red"])
    with pytest.raises(ProductError, match="scene lies outside the area"):
        download(item, tmp_path, bands=["red"], area=(100.0, 10.0, 100.1, 10.1))


def test_an_id_from_a_server_cannot_leave_the_folder(item: dict[str, Any], tmp_path: Path) -> None:
    with pytest.warns(SceneWarning, match="files are called after 'evil_x', not '../../evil/x'"):
        folder = download(item | {"id": "../../evil/x"}, tmp_path / "down", bands=["red"])
    assert folder.parent == tmp_path / "down"
    assert json.loads((folder / "item.json").read_text())["assets"]["red"]["href"] == "./red.tif"
