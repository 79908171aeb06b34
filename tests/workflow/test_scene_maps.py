"""Whose files a mapping command may replace, and which ledger travels with a map."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from pipeline.diagnostics.class_sets import LEVELS, SetLimits
from pipeline.errors import ModelError, OutputError
from pipeline.files import write_json
from pipeline.inference.plan import journal_key
from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.maps.legends import read_scheme
from pipeline.maps.pixels import MajorityPixels, SievedPixels
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.scenes.ledger import source_ledger
from pipeline.workflow import scene_maps
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.predict import predict_maps
from pipeline.workflow.scene_maps import MapOrder, map_scene
from tests.fakes.pixels import ArrayPixels
from tests.inference.models import changes, noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.workflow.outcome import Outcome

PRODUCTS = ("_conf.tif", "_quicklook.png", "_lc.gpkg", "_entropy.tif")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "model.safetensors", small_bundle())
    for seed, name in enumerate("ab"):
        noise_scene(tmp_path / f"{name}.tif", height=60, width=50, seed=seed)
    return tmp_path


def section(**more: object) -> MapSettings:
    return MapSettings.model_validate({"engine": "torch", "dtype": "float32"} | more)


def predict(world: Path, names: str = "a", *, force: bool = False, overwrite: bool = False, **asked: object) -> Outcome:
    return predict_maps(
        None, model=world / "model.safetensors", scenes=[str(world / f"{name}.tif") for name in names],
        output=world / "out", changes=changes(**({"dtype": "float32"} | asked)), force=force, overwrite=overwrite,
    )  # fmt: skip


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_users_file_of_a_products_name_is_told_and_stays(world: Path, product: str) -> None:
    theirs = world / "out" / f"a{product}"
    theirs.parent.mkdir()
    theirs.write_bytes(b"theirs")
    order = MapOrder(world / "out", section(polygons=True, entropy=True))
    bundle, scene = load_bundle(world / "model.safetensors"), noise_scene(world / "a.tif", height=60, width=50)
    for _ in range(2):
        with pytest.raises(OutputError, match=rf"a{product}: the file exists.*--overwrite"):
            map_scene(bundle, scene, order, progress=no_progress)
        assert theirs.read_bytes() == b"theirs"
    assert not order.work(scene).exists(), "mapped although a product is in the way"


def test_a_file_that_came_meanwhile_stays(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = world / "out" / "a_conf.tif"

    def slow(*given: object, **named: object) -> object:
        found = predict_scene(*given, **named)  # type: ignore[arg-type]
        theirs.write_bytes(b"theirs")
        return found

    monkeypatch.setattr(scene_maps, "predict_scene", slow)
    for _ in range(2):
        with pytest.raises(OutputError, match="the file exists"):
            predict(world)
        assert theirs.read_bytes() == b"theirs"
    assert not (world / "out" / "a_lc.tif").exists()


def test_maps_finished_elsewhere_replace_no_file_either(world: Path) -> None:
    bundle, scene = load_bundle(world / "model.safetensors"), noise_scene(world / "a.tif", height=60, width=50)
    order = MapOrder(world / "out", section())
    key = journal_key(bundle, scene.select(bundle.bands), order.settings)
    theirs = world / "out" / "a_quicklook.png"
    theirs.parent.mkdir()
    theirs.write_bytes(b"theirs")
    for _ in range(2):
        with pytest.raises(OutputError, match="the file exists"):
            map_scene(bundle, scene, order, progress=no_progress, key=key)
        assert theirs.read_bytes() == b"theirs"


def test_force_maps_again_what_the_same_command_made(world: Path) -> None:
    asked = {"mosaic": "first", "polygons": True}
    predict(world, "ab", **asked)
    made = {path: path.read_bytes() for path in (world / "out").glob("*.tif")}
    assert world / "out" / "mosaic_lc.tif" in made
    again = predict(world, "ab", force=True, **asked)
    assert again.failed == ()
    assert again.summary.startswith("2 scenes mapped")
    assert {path: path.read_bytes() for path in made} == made
    (world / "out" / "a_conf.tif").write_bytes(b"theirs")
    failed = predict(world, "ab", force=True, **asked).failed
    assert len(failed) == 1
    assert "the file exists" in failed[0]
    assert (world / "out" / "a_conf.tif").read_bytes() == b"theirs"


def test_a_map_of_other_settings_is_replaced_only_when_asked(world: Path) -> None:
    predict(world)
    with pytest.raises(OutputError, match=r"a_lc\.tif: the file exists"):
        predict(world, force=True, probabilities=True)
    predict(world, overwrite=True, probabilities=True)


def test_a_mosaic_follows_its_maps_and_is_else_left_alone(world: Path) -> None:
    predict(world, "ab", mosaic="first")
    mosaic = world / "out" / "mosaic_lc.tif"
    first = mosaic.stat().st_mtime_ns
    predict(world, "ab", mosaic="first")
    assert mosaic.stat().st_mtime_ns == first
    mosaic.write_bytes(b"theirs")
    with pytest.raises(OutputError, match=r"mosaic_lc\.tif: the file exists"):
        predict(world, "ab", mosaic="first")
    assert mosaic.read_bytes() == b"theirs"


def tag_of(path: Path) -> dict[str, object]:
    with rasterio.open(path) as dataset:
        found: dict[str, object] = json.loads(dataset.tags()["LANDCOVER_LEDGER"])
    return found


def test_a_ledger_beside_the_maps_is_not_the_scenes(world: Path) -> None:
    write_json(world / "out" / "ledger.json", {"scenes": [{"scene": "a", "sensor": "another file"}]})
    predict(world)
    scene = noise_scene(world / "a.tif", height=60, width=50)
    assert tag_of(world / "out" / "a_lc.tif") == json.loads(json.dumps(source_ledger(scene), default=str))


def test_a_run_samples_once_and_its_maps_carry_it(world: Path) -> None:
    write_json(world / "run" / "ledger.json", {"scenes": [{"scene": "a", "sensor": "as it was read"}]})
    bundle, scene = load_bundle(world / "model.safetensors"), noise_scene(world / "a.tif", height=60, width=50)
    order = MapOrder(world / "run" / "maps", section(), ledger=world / "run")
    files = map_scene(bundle, scene, order, progress=no_progress)
    assert tag_of(files.class_map) == {"scene": "a", "sensor": "as it was read"}


def cleaned(world: Path) -> dict[str, np.ndarray]:
    """The map and the map as it was: classes differ, and no pixel with data came or went."""
    codes = {}
    for kind in ("lc", "unfiltered"):
        with rasterio.open(world / "out" / f"a_{kind}.tif") as dataset:
            codes[kind] = dataset.read(1)
    assert (codes["lc"] != codes["unfiltered"]).any()
    assert ((codes["lc"] == 0) == (codes["unfiltered"] == 0)).all()
    return codes


def test_a_sieved_map_keeps_the_map_as_it_was_beside_it(world: Path) -> None:
    asked = {"sieve_ha": 0.5, "majority_px": 3, "polygons": True}
    predict(world, **asked)
    codes = cleaned(world)
    scene = noise_scene(world / "a.tif", height=60, width=50)
    grid, raw = scene.grid, ArrayPixels(codes["unfiltered"])
    expected = SievedPixels(MajorityPixels(raw, grid, 3), grid, 50).read(grid.window)
    assert (expected == codes["lc"]).all()
    assert not list((world / "out" / ".work").rglob("*.u8"))


def test_class_sets_are_written_with_what_was_checked(world: Path) -> None:
    with pytest.raises(ModelError, match="no limits of class sets"):
        predict(world, sets=0.9)
    assert not (world / "out" / "a_lc.tif").exists()
    full = np.full(len(LEVELS), 0.2)
    extra = SetLimits(full, full, full, full, 25).tensors()
    save_bundle(world / "model.safetensors", replace(small_bundle(), extra=extra))
    found = predict(world, sets=0.9)
    assert "a: class sets of 90%" in found.hint
    assert "in 25 blocks held out in turn" in found.hint
    assert not (world / "out" / "a_probabilities.tif").exists()
    with rasterio.open(world / "out" / "a_sets.tif") as sets, rasterio.open(world / "out" / "a_lc.tif") as mapped:
        assert ((sets.read(1) == 0) == (mapped.read(1) == 0)).all()
    assert any(" or " in name for name in read_scheme(world / "out" / "a_sets.tif").names)
    assert "class sets" in predict(world, sets=0.9).hint  # nothing to do, and the same words


def test_segments_clean_the_map_and_keep_it_as_it_was(world: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    predict(world, segments_px=20)
    cleaned(world)
