from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import OutputError, SceneError
from pipeline.inference import steps
from pipeline.inference.engine import Choice
from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.inference.stream import Writing
from pipeline.training.networks import network_specs
from pipeline.training.settings import TrainingSettings
from tests.inference.models import bundle_of, identity_bundle, noise_scene, one_hot, small_bundle, write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.inference.predict import Prediction
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Scene

CLASSES = 5
IDENTITY = identity_bundle(CLASSES)


def plain(**changes: object) -> MapSettings:
    return MapSettings(**({"engine": "torch", "dtype": "float32", "device": "cpu", "threads": 1} | changes))


def codes(bundle: ModelBundle, scene: Scene, out: Path, **changes: object) -> NDArray[np.uint8]:
    with predict_scene(bundle, scene, out=out, settings=plain(**changes)) as mapped:
        return mapped.codes.read(scene.grid.window)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile_px=st.integers(1, 90),
    halo_px=st.integers(0, 20),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_an_identity_network_returns_the_scene_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, tile_px: int, halo_px: int, batch: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("identity")
    classes = np.random.default_rng(seed).integers(-1, CLASSES, (height, width))
    scene = write_scene(folder / "scene.tif", one_hot(classes, count=CLASSES))
    tile_px = max(tile_px, height // 6 + 1, width // 6 + 1)
    got = codes(IDENTITY, scene, folder / "out", tile_px=tile_px, halo_px=halo_px, batch=batch)
    assert np.array_equal(got, np.where(classes >= 0, 3 * classes + 1, 0))
    shutil.rmtree(folder)


def test_a_scene_of_coordinates_comes_back_in_place(tmp_path: Path) -> None:
    size = 16
    bundle = identity_bundle(size)
    rows, cols = np.mgrid[:200, :131]
    for axis in (rows // size, rows % size, cols // size, cols % size):
        scene = write_scene(tmp_path / "scene.tif", one_hot(axis, count=size))
        got = codes(bundle, scene, tmp_path / "out", tile_px=48, halo_px=7)
        assert np.array_equal(got, 3 * axis + 1)


def test_all_layers_agree_with_the_plain_network(tmp_path: Path) -> None:
    bundle = small_bundle(members=2)
    scene = noise_scene(tmp_path / "scene.tif", height=96, width=64)
    with scene.open() as reader:
        raster = reader.read(scene.grid.window.expand(32))
    inner = (slice(32, 128), slice(32, 96))
    with torch.inference_mode():
        chip = bundle.preprocess(raster.values, raster.valid)[None]
        shares = bundle.network()(chip).softmax(1)[0][(slice(None), *inner)].numpy()
    valid = raster.valid[inner]
    asked = plain(tile_px=200, halo_px=32, probabilities=True, entropy=True, margin=True)
    with predict_scene(bundle, scene, out=tmp_path / "out", settings=asked) as mapped:
        got = {name: store.read(scene.grid.window) for name, store in mapped.layers.items()}
    expected = bundle.scheme.index_to_code[shares.argmax(0)]
    assert np.array_equal(got["codes"][valid], expected[valid])
    ordered = np.sort(shares, axis=0)
    entropy = -(shares * np.log(shares)).sum(0) / np.log(4)
    for name, share in (("confidence", ordered[-1]), ("margin", ordered[-1] - ordered[-2]), ("entropy", entropy)):
        assert np.abs(got[name][valid] - 100.0 * share[valid]).max() < 0.51
        assert (got[name][~valid] == 255).all()
    assert np.abs(got["probabilities"][:, valid] - 100.0 * shares[:, valid]).max() < 0.51
    assert (got["codes"][~valid] == 0).all()
    assert (~valid).any()


def test_codes_do_not_depend_on_tile_size_or_batch(tmp_path: Path) -> None:
    bundle = small_bundle()
    scene = noise_scene(tmp_path / "scene.tif", height=230, width=170)
    whole = codes(bundle, scene, tmp_path / "out", tile_px=400, halo_px=40)
    for tile_px, batch in ((64, 1), (100, 3), (37, 2)):
        other = codes(bundle, scene, tmp_path / "out", tile_px=tile_px, halo_px=40, batch=batch)
        assert (other == whole).mean() > 0.9995
    assert len(np.unique(whole)) > 2


def test_the_default_network_reads_across_the_borders_of_tiles(tmp_path: Path) -> None:
    spec, _ = network_specs(TrainingSettings(), bands_in=3, classes=4, chip_px=64)
    assert spec is not None
    bundle = bundle_of(spec)
    scene = noise_scene(tmp_path / "scene.tif", height=150, width=130)
    whole = codes(bundle, scene, tmp_path / "out", tile_px=200)
    tiled = codes(bundle, scene, tmp_path / "out", tile_px=32)
    assert np.array_equal(whole, tiled)
    assert len(np.unique(whole)) > 2


def test_any_number_of_readers_and_workers_gives_the_same_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=150, width=170), small_bundle()
    expected = codes(bundle, scene, tmp_path / "usual", tile_px=32)
    taken: list[object] = []
    real = steps.read_tile

    def noted(reader: object, *args: object, **options: object) -> object:
        taken.append(reader)
        return real(reader, *args, **options)

    monkeypatch.setattr(Choice, "readers", 4)
    monkeypatch.setattr(Choice, "workers", 5)
    monkeypatch.setattr(steps, "read_tile", noted)
    assert np.array_equal(codes(bundle, scene, tmp_path / "many", tile_px=32), expected)
    assert len(set(map(id, taken))) == 4


def test_the_chip_classifier_gives_whole_cells_in_any_tiles(tmp_path: Path) -> None:
    from pipeline.model.spec import NetworkSpec

    spec = NetworkSpec(3, 4, head="chip", depth=2, chip_px=16, chip_stride_px=8, spectral_channels=0, dropout=0.0)
    bundle = bundle_of(spec)
    scene = noise_scene(tmp_path / "scene.tif", height=60, width=52)
    whole = codes(bundle, scene, tmp_path / "out", tile_px=64)
    tiled = codes(bundle, scene, tmp_path / "out", tile_px=24)
    assert np.array_equal(whole, tiled)
    assert all(len(np.unique(whole[r : r + 8, c : c + 8])) == 1 for r in range(0, 24, 8) for c in range(0, 24, 8))


def test_an_all_nodata_scene_is_all_nodata_and_runs_no_network(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full((CLASSES, 40, 40), np.nan, dtype=np.float32))
    with predict_scene(IDENTITY, scene, out=tmp_path / "out", settings=plain()) as mapped:
        assert not mapped.codes.read(scene.grid.window).any()
        assert (mapped.confidence.read(scene.grid.window) == 255).all()


def test_the_same_command_does_nothing_and_changes_say_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle, out = small_bundle(), tmp_path / "out"
    scene = noise_scene(tmp_path / "scene.tif", height=80, width=80)

    def mapped(model: ModelBundle, **changes: object) -> Prediction:
        with predict_scene(model, scene, out=out, settings=plain(**changes)) as prediction:
            return prediction

    first, again = mapped(bundle, tile_px=32), mapped(bundle, tile_px=32)
    assert first.figures["tiles_before"] == 0
    assert again.figures["tiles_before"] == again.figures["tiles"] == 9
    assert mapped(bundle, tile_px=40).why_fresh == "settings have changed since the last run"
    assert "starting afresh" in caplog.text
    bundle = small_bundle(seed=5)
    assert mapped(bundle, tile_px=40).why_fresh == "model has changed since the last run"
    scene = noise_scene(tmp_path / "scene.tif", height=80, width=80, seed=9)
    assert mapped(bundle, tile_px=40).why_fresh == "input has changed since the last run"
    (out / "codes.u8").unlink()
    fresh = mapped(bundle, tile_px=40)
    assert (fresh.why_fresh, fresh.figures["tiles_before"]) == ("stores of mapped rows are missing", 0)
    fresh.remove()
    assert not list(out.iterdir())


def test_a_fresh_start_leaves_no_layer_of_an_earlier_run(tmp_path: Path) -> None:
    scene, out = noise_scene(tmp_path / "scene.tif", height=40, width=40), tmp_path / "out"
    predict_scene(small_bundle(), scene, out=out, settings=plain(tile_px=32, probabilities=True)).close()
    assert (out / "probabilities.u8").exists()
    mapped = predict_scene(small_bundle(), scene, out=out, settings=plain(tile_px=32))
    assert {path.stem for path in out.glob("*.u8")} == {"codes", "confidence"}
    mapped.remove()
    assert not list(out.iterdir())


def test_a_run_stopped_anywhere_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = small_bundle()
    scene = noise_scene(tmp_path / "scene.tif", height=160, width=100)
    asked = plain(tile_px=32, halo_px=8, batch=2)
    monkeypatch.setattr("pipeline.inference.stream.SYNC_SECONDS", 0.0)
    predict_scene(bundle, scene, out=tmp_path / "whole", settings=asked).close()
    for stop_after in (0, 1, 3):
        seen = []
        real = Writing.put

        def put(self: Writing, *args: object, seen: list[int] = seen, stop: int = stop_after, real=real) -> None:
            if len(seen) > stop:
                raise KeyboardInterrupt
            seen.append(1)
            real(self, *args)

        monkeypatch.setattr(Writing, "put", put)
        with pytest.raises(KeyboardInterrupt):
            predict_scene(bundle, scene, out=tmp_path / "cut", settings=asked)
        monkeypatch.setattr(Writing, "put", real)
        mapped = predict_scene(bundle, scene, out=tmp_path / "cut", settings=asked)
        mapped.close()
        for name in ("codes", "confidence"):
            assert (tmp_path / "cut" / f"{name}.u8").read_bytes() == (tmp_path / "whole" / f"{name}.u8").read_bytes()
        assert mapped.figures["tiles_before"] > 0 or stop_after < 3
        mapped.remove()


@pytest.mark.filterwarnings("ignore:.*int8 gives:pipeline.errors.ModelWarning")  # random weights
def test_a_run_in_integers_never_continues_one_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    bundle, scene = small_bundle(), noise_scene(tmp_path / "scene.tif", height=96, width=64)
    monkeypatch.setattr("pipeline.inference.stream.SYNC_SECONDS", 0.0)
    asked = plain(engine="openvino", dtype="int8", tile_px=32, halo_px=8)
    predict_scene(bundle, scene, out=tmp_path / "cut", settings=plain(tile_px=32, halo_px=8)).close()
    real = Writing.done

    def done(self: Writing, step: int, *, pixels: int) -> None:
        real(self, step, pixels=pixels)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writing, "done", done)
    with pytest.raises(KeyboardInterrupt):
        predict_scene(bundle, scene, out=tmp_path / "cut", settings=asked)
    monkeypatch.setattr(Writing, "done", real)
    resumed, whole = (predict_scene(bundle, scene, out=tmp_path / name, settings=asked) for name in ("cut", "whole"))
    assert 0 < resumed.figures["tiles_before"] < resumed.figures["tiles"]
    assert resumed.tags()["LANDCOVER_PREDICTION"]["dtype"] == "int8"
    for mapped in (resumed, whole):
        mapped.close()
    for name in ("codes", "confidence"):
        assert (tmp_path / "cut" / f"{name}.u8").read_bytes() == (tmp_path / "whole" / f"{name}.u8").read_bytes()


@pytest.mark.parametrize("sync_s", [0.0, 3600.0])
def test_a_full_disk_keeps_what_was_mapped_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync_s: float
) -> None:
    from pipeline.inference.rows import RowStore

    bundle = small_bundle()
    scene = noise_scene(tmp_path / "scene.tif", height=128, width=64)
    monkeypatch.setattr("pipeline.inference.stream.SYNC_SECONDS", sync_s)
    real, calls = RowStore.write, []

    def write(self: RowStore, *args: object, **named: object) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise OutputError("disk is full", path=tmp_path)
        real(self, *args, **named)

    monkeypatch.setattr(RowStore, "write", write)
    with pytest.raises(OutputError, match="disk is full"):
        predict_scene(bundle, scene, out=tmp_path / "out", settings=plain(tile_px=32, halo_px=4))
    monkeypatch.setattr(RowStore, "write", real)
    with predict_scene(bundle, scene, out=tmp_path / "out", settings=plain(tile_px=32, halo_px=4)) as mapped:
        assert mapped.figures["tiles_before"] == 2


def test_a_progress_that_raises_keeps_the_steps_before_it(tmp_path: Path) -> None:
    scene, asked = noise_scene(tmp_path / "scene.tif", height=128, width=64), plain(tile_px=32, halo_px=4)

    def progress(done: int, total: int) -> None:
        if done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_scene(small_bundle(), scene, out=tmp_path / "out", settings=asked, progress=progress)
    with predict_scene(small_bundle(), scene, out=tmp_path / "out", settings=asked) as mapped:
        assert mapped.figures["tiles_before"] == 3


def test_steps_whose_sync_failed_are_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.inference.rows import RowStore

    scene, asked = noise_scene(tmp_path / "scene.tif", height=128, width=64), plain(tile_px=32, halo_px=4)
    calls: list[int] = []

    def sync(self: RowStore) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OutputError("cannot write mapped rows", path=tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.inference.stream.SYNC_SECONDS", 0.0)
        patch.setattr(RowStore, "sync", sync)
        with pytest.raises(OutputError, match="cannot write"):
            predict_scene(small_bundle(), scene, out=tmp_path / "out", settings=asked)
    with predict_scene(small_bundle(), scene, out=tmp_path / "out", settings=asked) as mapped:
        assert mapped.figures["tiles_before"] == 0


def test_a_vanished_input_is_one_error_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.scenes.reader import SceneReader

    scene = noise_scene(tmp_path / "scene.tif", height=128, width=64)
    monkeypatch.setattr("pipeline.inference.stream.SYNC_SECONDS", 0.0)
    real = SceneReader.read

    def read(self: SceneReader, window: Window) -> object:
        if window.row >= 60:  # the first two rows of tiles can be read, whichever worker comes first
            raise SceneError("cannot read", path="scene.tif")
        return real(self, window)

    monkeypatch.setattr(SceneReader, "read", read)
    with pytest.raises(SceneError, match=r"scene\.tif"):
        predict_scene(small_bundle(), scene, out=tmp_path / "out", settings=plain(tile_px=32, halo_px=4))
    monkeypatch.setattr(SceneReader, "read", real)
    with predict_scene(small_bundle(), scene, out=tmp_path / "out", settings=plain(tile_px=32, halo_px=4)) as mapped:
        assert mapped.figures["tiles_before"] == 4


def test_progress_grows_to_the_whole_scene(tmp_path: Path) -> None:
    scene = noise_scene(tmp_path / "scene.tif", height=70, width=64)
    seen: list[tuple[int, int]] = []
    mapped = predict_scene(
        small_bundle(), scene, out=tmp_path / "out", settings=plain(tile_px=32), progress=lambda *at: seen.append(at)
    )
    mapped.close()
    assert seen == sorted(seen)
    assert seen[-1] == (70 * 64, 70 * 64)


def test_a_scene_without_a_band_of_the_model_is_refused(tmp_path: Path) -> None:
    scene = noise_scene(tmp_path / "scene.tif", height=20, width=20, bands=2)
    with pytest.raises(SceneError, match="lacks band noise3"):
        predict_scene(small_bundle(), scene, out=tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    scene = noise_scene(tmp_path / "scene.tif", height=20, width=20)
    with pytest.raises(OutputError, match="output folder cannot be written"):
        predict_scene(small_bundle(), scene, out=tmp_path / "file" / "out")
