from __future__ import annotations

import hashlib
import json
import pickle
import socket
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torchvision

from pipeline.cli.entry import main
from pipeline.errors import ConfigError, ModelError
from pipeline.inference.sources import STORED, stored_values
from pipeline.model import records
from pipeline.model.bundle import save_bundle
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.settings import SceneOptions
from pipeline.workflow import models
from pipeline.workflow.models import export_model, get_weights, list_weights, show_model, show_weights
from tests.fakes.small_world import BANDS, write_scene, write_world
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path

BUNDLE = small_bundle()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    stored = {name: [0.0001, -0.1] for name in BUNDLE.bands}
    return save_bundle(tmp_path / "model.safetensors", replace(BUNDLE, provenance={STORED: stored}))


def test_an_export_takes_raw_numbers_as_trained_on(model: Path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    outcome = export_model(model, form="onnx", output=None, tile_px=32, overwrite=False)
    last = outcome.hint.splitlines()[-1]
    assert "3 bands in this order: noise1, noise2, noise3; raw numbers (value = number x 0.0001 -0.1)" in last
    props = {item.key: item.value for item in onnx.load(str(outcome.written[0])).metadata_props}
    assert json.loads(props["bands"]) == list(BUNDLE.bands)
    assert json.loads(props["scale"]) == [0.0001] * 3
    assert json.loads(props["offset"]) == [-0.1] * 3
    # What Deepness feeds: the numbers over 255, standardised by what the file says of them.
    dn = np.random.default_rng(0).integers(0, 20_000, (1, 3, 32, 32)).astype(np.float32)
    mean, std = (np.array(json.loads(props[f"standardization_{key}"]))[:, None, None] for key in ("mean", "std"))
    session = runtime.InferenceSession(str(outcome.written[0]))
    (found,) = session.run(None, {"input": ((dn / 255 - mean) / std).astype(np.float32)})
    import torch

    with torch.inference_mode():
        chip = BUNDLE.preprocess(dn[0] * np.float32(0.0001) - np.float32(0.1), np.ones((32, 32), dtype=bool))[None]
        expected = BUNDLE.network()(chip).softmax(1).numpy()
    assert np.abs(found - expected).max() < 1e-3


def test_a_scale_that_is_given_wins_and_1_means_values(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    given = export_model(model, form="onnx", output=tmp_path / "a.onnx", tile_px=32, scale=1.0, overwrite=False)
    assert given.hint.endswith("values as they are")
    other = export_model(model, form="onnx", output=tmp_path / "b.onnx", tile_px=32, scale=0.5, overwrite=False)
    assert other.hint.endswith("raw numbers (value = number x 0.5)")


def test_stored_values_are_those_of_the_files(tmp_path: Path) -> None:
    noise_scene(tmp_path / "s.tif", height=20, width=20)
    scene = open_geotiff(tmp_path / "s.tif", options=SceneOptions(bands=("a", "b", "c"), scale=0.5, offset=2.0))
    assert stored_values(scene.select(("c", "a"))) == {"c": [0.5, 2.0], "a": [0.5, 2.0]}


def test_a_model_says_when_from_what_and_how_good(tmp_path: Path) -> None:
    bundle = replace(BUNDLE, provenance={"polygons": {"train": 5, "validation": 2, "test": 3}})
    path = save_bundle(tmp_path / "model" / "model.safetensors", bundle)
    about = show_model(path).summary
    assert f"trained      {datetime.now(UTC):%Y-%m-%d}" in about
    assert "on 7 polygons and pixels of" in about
    assert "judged       not yet" in about
    network = {"method": "network", "overall_accuracy": 0.75, "macro_f1": 0.5, "test_polygons": 3}
    (tmp_path / "accuracy.json").write_text(json.dumps(network | {"baselines": []}))
    assert (
        "judged       network: overall accuracy 75.0 %, macro-F1 0.500, on 3 test polygons" in show_model(path).summary
    )


@pytest.fixture(autouse=True)
def _no_network_and_a_hub_of_its_own(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        pytest.fail("the network was asked for")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


def by_name(outcome):
    return {item["name"]: item for item in outcome.data["weights"]}


def test_all_weights_are_listed_with_bands_and_licence():
    found = by_name(list_weights())
    assert {item["encoder"] for item in found.values()} >= {"resnet18", "resnet50", "resnet152"}
    moco = found["ResNet18_Weights.SENTINEL2_ALL_MOCO"]
    assert (moco["sensor"], len(moco["bands"]), moco["licence"], moco["cached"]) == (
        "sentinel-2", 13, "CC-BY-4.0", False,
    )  # fmt: skip
    assert moco["scaling"]["std"] == [1.0] * 13
    landsat = found["ResNet50_Weights.LANDSAT_OLI_SR_MOCO"]
    assert (landsat["sensor"], landsat["level"], landsat["licence"]) == ("landsat-oli", "SR", "CC0-1.0")
    assert found["ResNet18_Weights.IMAGENET1K_V1"]["bands"] == ["red", "green", "blue"]
    assert found["landcover_resnet18"]["cached"]
    assert found["ukis_csmask_6b_l1c"]["bands"] == ["blue", "green", "red", "nir", "swir16", "swir22"]
    assert all(item["url"].startswith("https://") for item in found.values())
    published = [item for item in found.values() if item["sensor"] in {"sentinel-2", "landsat-oli", "landsat-etm"}]
    assert all(item["licence"] for item in published)


def test_the_list_can_be_narrowed():
    found = list_weights(encoder="resnet18", sensor="sentinel-2").data["weights"]
    assert {item["encoder"] for item in found} == {"resnet18"}
    assert all("sentinel-2" in item["sensor"].split() for item in found)
    for wrong in ({"encoder": "resnet19"}, {"sensor": "spot"}):
        with pytest.raises(ConfigError, match="expected one of"):
            list_weights(**wrong)


def test_what_is_downloaded_is_marked():
    record = records.find_record("ResNet18_Weights.SENTINEL2_ALL_MOCO", architecture="resnet18")
    record.cache.parent.mkdir(parents=True)
    record.cache.write_bytes(b"weights")
    found = by_name(list_weights(encoder="resnet18"))
    assert [name for name, item in found.items() if item["cached"]] == ["landcover_resnet18", record.name]


def test_bands_of_a_scene_are_matched_by_name(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    found = list_weights(scene=str(scene)).data
    assert found["bands"] == list(BANDS)
    known = [item["known_bands"] for item in found["weights"]]
    assert known == sorted(known, reverse=True)
    oli = by_name(list_weights(scene=str(scene)))["ResNet18_Weights.LANDSAT_OLI_SR_MOCO"]
    assert oli["known_bands"] == 3
    assert oli["starts_from"]["nir"] == "nir08"
    assert "swir16" in oli["unused_bands"]


def test_bands_of_a_configuration_are_matched(tmp_path):
    config = write_world(tmp_path, inputs={"bands": ["red", "nir"], "indices": ["NDVI"]})
    shown = show_weights("ResNet18_Weights.SENTINEL2_ALL_MOCO", config=config)
    assert shown.data["weights"]["starts_from"] == {"red": "red", "nir": "nir", "ndvi": None}
    with pytest.raises(ConfigError, match="give one of them"):
        list_weights(config=config, scene="scene.tif")


def test_imagenet_is_meant_for_an_encoder():
    shown = show_weights("imagenet", encoder="resnet50").data["weights"]
    assert shown["name"].startswith("ResNet50_Weights.IMAGENET")
    assert shown["sensor"] is None


def test_a_misspelt_name_gets_the_nearest():
    with pytest.raises(ModelError, match="SENTINEL2_ALL_MOCO"):
        show_weights("ResNet18_Weights.SENTINEL_ALL_MOCO")
    with pytest.raises(ModelError, match="no such weights file"):
        show_weights("absent.pth")


def tensors(bands=4):
    net = torchvision.models.resnet18(weights=None)
    net.conv1 = torch.nn.Conv2d(bands, 64, 7, bias=False)
    return net.state_dict()


def test_a_file_says_its_encoder_and_its_bands(tmp_path):
    torch.save(tensors(), tmp_path / "w.pth")
    facts = show_weights(str(tmp_path / "w.pth")).data["weights"]
    assert (facts["encoder"], facts["bands"], facts["inputs"]) == ("resnet18", None, 4)
    torch.save(tensors(3), tmp_path / "rgb.pth")
    facts = show_weights(str(tmp_path / "rgb.pth"), scene=str(write_scene(tmp_path / "scene.tif"))).data["weights"]
    assert facts["bands"] == ["red", "green", "blue"]
    assert facts["starts_from"] == {"blue": "blue", "green": "green", "red": "red", "nir": "red"}


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_file_with_code_in_it_is_not_opened(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    assert main(["weights", "show", str(tmp_path / "evil.pth")]) == 2
    out, err = capsys.readouterr()
    assert "could run code" in err
    assert "code ran" not in out + err


def test_fetching_downloads_and_checks(tmp_path, monkeypatch):
    torch.save(tensors(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    there = (tmp_path / "w.pth").rename(tmp_path / f"w-{digest}.pth")
    record = records.WeightRecord("Ours.SMALL", "resnet18", BANDS, there.as_uri(), None, "test")
    for module in (records, models):
        monkeypatch.setattr(module, "weight_records", lambda: (record,))
    assert not show_weights("Ours.SMALL").data["weights"]["cached"]
    assert show_weights("Ours.SMALL", fetch=True).data["weights"]["cached"]


def test_getting_shows_licence_hash_and_progress(tmp_path, monkeypatch):
    torch.save(tensors(), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    there = (tmp_path / "w.pth").rename(tmp_path / f"w-{digest[:8]}.pth")
    record = records.WeightRecord("Ours.SMALL", "resnet18", BANDS, there.as_uri(), None, "test", licence="CC0-1.0")
    monkeypatch.setattr(records, "weight_records", lambda: (record,))
    seen = []
    got = get_weights("Ours.SMALL", progress=lambda *step: seen.append(step))
    assert seen[-1] == ("Ours.SMALL, licence CC0-1.0", len(content), len(content))
    assert got.data["weights"]["sha256"] == digest
    assert all(word in got.summary for word in ("is downloaded", "CC0-1.0", digest))
    assert "was here" in get_weights("Ours.SMALL").summary
    assert "was here" in get_weights("landcover_resnet18").summary
    record.cache.unlink()
    there.write_bytes(content[:-4])
    with pytest.raises(ModelError, match="not what its name says"):
        get_weights("Ours.SMALL")
    assert not record.cache.exists()


def test_the_list_prints_the_order_of_the_search(capsys):
    assert main(["weights", "list", "--encoder", "efficientnet_b4"]) == 0
    out = capsys.readouterr().out
    assert out.index("hub folder") < out.index("ukis-csmask, where") < out.index("which comes with landcover")
    assert "ukis_csmask_4b_l2a" in out


def test_without_a_network_fetching_says_what_to_do(tmp_path, monkeypatch, capsys):
    gone = records.WeightRecord("Ours.GONE", "resnet18", BANDS, (tmp_path / "gone-12345678.pth").as_uri(), None, "")
    for module in (records, models):
        monkeypatch.setattr(module, "weight_records", lambda: (gone,))
    assert main(["weights", "show", "Ours.GONE", "--fetch"]) == 2
    err = capsys.readouterr().err
    assert "download it where there is a network and put it at" in err
    assert err.count("\n") == 1


def test_the_commands_print_tables_and_json(capsys):
    assert main(["weights", "list", "--encoder", "resnet152"]) == 0
    assert "ResNet152_Weights.SENTINEL2_MI_MS_SATLAS" in capsys.readouterr().out
    assert main(["weights", "show", "ResNet18_Weights.SENTINEL2_ALL_MOCO", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"]["encoder"] == "resnet18"
