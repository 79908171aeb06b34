from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.scenes.listing import list_scenes
from tests.inference.models import write_scene

if TYPE_CHECKING:
    from pathlib import Path


def raster(path: Path, bands: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scene(path, np.zeros((bands, 8, 8), dtype=np.float32))
    return path


def test_a_text_file_holds_paths_beside_it_urls_and_remarks(tmp_path: Path) -> None:
    listed = tmp_path / "scenes.txt"
    listed.write_text("# dry season\n\na.tif\n/abs/b.SAFE\nhttps://example.org/item.json\n")
    found = list_scenes(listed, items=tmp_path / "items")
    assert found == [str(tmp_path / "a.tif"), "/abs/b.SAFE", "https://example.org/item.json"]


def test_a_folder_holds_products_and_rasters_of_several_bands(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    raster(folder / "b.tif", 3)
    (folder / "broken.tif").write_bytes(b"no raster")
    raster(folder / "bands" / "red.tif", 1)
    (folder / "S2A_X.SAFE" / "GRANULE").mkdir(parents=True)
    (folder / "readme.md").write_text("")
    found = [path.rsplit("/", 1)[-1] for path in list_scenes(folder, items=tmp_path / "items")]
    assert found == ["S2A_X.SAFE", "b.tif", "bands", "broken.tif"]


def test_a_product_and_a_folder_of_bands_are_one_scene(tmp_path: Path) -> None:
    for name in ("red", "nir"):
        raster(tmp_path / "bands" / f"{name}.tif", 1)
    safe = tmp_path / "S2A_X.SAFE"
    (safe / "GRANULE").mkdir(parents=True)
    for folder in (tmp_path / "bands", safe):
        assert list_scenes(folder, items=tmp_path / "items") == [str(folder)]


def test_a_collection_becomes_a_file_per_item(tmp_path: Path) -> None:
    def item(name: str) -> dict[str, object]:
        return {
            "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [],
            "properties": {"datetime": "2024-06-01T00:00:00Z"}, "assets": {"red": {"href": f"./{name}/red.tif"}},
        }  # fmt: skip

    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item("a"), item("b")]}))
    found = list_scenes(path, items=tmp_path / "work")
    assert [name.rsplit("/", 1)[-1] for name in found] == ["a.json", "b.json"]
    written = json.loads((tmp_path / "work" / "b.json").read_text())
    assert written["assets"]["red"]["href"] == str(tmp_path / "b" / "red.tif")
    path.write_text(json.dumps(item("a")))
    assert list_scenes(path, items=tmp_path / "work") == [str(path)]


def test_nothing_there_and_nothing_in_it_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such list"):
        list_scenes(tmp_path / "none.txt", items=tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="no scene in it"):
        list_scenes(tmp_path / "empty.txt", items=tmp_path)
