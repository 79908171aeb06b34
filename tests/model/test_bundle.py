"""The model file: whole, ours, the same bytes; and scenes that do not fit it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.errors import ModelError, OutputError
from pipeline.model.bundle import load_bundle, save_bundle, to_bytes
from pipeline.model.describe import KEY, describe, describe_text, read_header
from pipeline.model.network import build_network
from pipeline.model.spec import NetworkSpec


def rewrite(path, change):
    """The file with another header JSON."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"][KEY])
    change(about)
    header["__metadata__"][KEY] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def test_a_model_comes_back_as_it_was_saved(bundle, tmp_path):
    path = save_bundle(tmp_path / "new" / "model.safetensors", bundle)
    again = load_bundle(path)
    assert again.header() == bundle.header()
    assert again.hash == bundle.hash
    assert again.scheme == bundle.scheme
    assert torch.equal(again.extra["forest.threshold"], torch.arange(3.0))
    assert [item.name for item in path.parent.iterdir()] == ["model.safetensors"]
    x = torch.randn(1, 2, 9, 11)
    with torch.inference_mode():
        torch.testing.assert_close(again.network()(x), bundle.network()(x))
        torch.testing.assert_close(again.network(fused=True)(x), bundle.network()(x), rtol=1e-4, atol=1e-5)


def test_equal_models_give_equal_bytes_and_others_do_not(bundle, tmp_path):
    first, second = (save_bundle(tmp_path / name, bundle).read_bytes() for name in "ab")
    assert first == second == to_bytes(load_bundle(tmp_path / "a"))
    assert replace(bundle, temperature=1.6).hash != bundle.hash


def test_loading_leaves_the_random_numbers_alone(bundle, tmp_path):
    path = save_bundle(tmp_path / "m", bundle)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_bundle(path)
    assert torch.equal(torch.rand(1), expected)


def test_description_needs_no_torch(bundle, tmp_path):
    path = save_bundle(tmp_path / "model.safetensors", bundle)
    code = "import sys; from pipeline.model.describe import describe_text; print(describe_text(sys.argv[1]))"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip("\n") == describe_text(path)
    for word in (
        "water",
        "trees",
        "crops",
        "U-Net, resnet18",
        "pixel network",
        "nir",
        "sentinel-2 L2A",
        "2026-01-01",
        "1.5",
    ):
        assert word in done.stdout
    count = sum(value.numel() for member in bundle.members for value in member.state_dict().values())
    assert describe(path)["weights"] == count


@pytest.mark.parametrize("keep", [0, 4, 50, 400, -1])
def test_a_file_cut_anywhere_is_refused(bundle, tmp_path, keep):
    path = save_bundle(tmp_path / "m", bundle)
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(ModelError, match=r"cut off|not a model"):
        load_bundle(path)


def test_a_flipped_bit_is_refused_or_harmless(bundle, tmp_path):
    path = save_bundle(tmp_path / "m", bundle)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    places = [*range(8), *rng.integers(8, header, 150), *rng.integers(header, len(content), 100)]
    refused = 0
    for place in places:
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoilt)
        try:
            again = load_bundle(path)
        except ModelError:
            refused += 1
        else:
            assert again.hash == bundle.hash
    assert refused > 0.9 * len(places)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bundle, tmp_path, bad):
    path = save_bundle(tmp_path / "m", bundle)
    with torch.no_grad():
        bundle.members[1].head.bias[1] = bad
    with pytest.raises(ModelError, match="not finite"):
        save_bundle(path, bundle)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["member1.head.bias"][1] = bad
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ModelError, match="has changed since"):
        load_bundle(path)
    rewrite(path, lambda about: about.update(format=1))
    with pytest.raises(ModelError, match=r"not finite numbers.*member1.head.bias"):
        load_bundle(path)


def test_files_of_format_1_have_no_digest_and_are_read(bundle, tmp_path):
    path = save_bundle(tmp_path / "m", bundle)
    rewrite(path, lambda about: (about.pop("sha256"), about.update(format=1)))
    assert load_bundle(path).hash == bundle.hash


def test_files_that_are_not_ours_are_refused(tmp_path):
    text, other, absent = tmp_path / "m.txt", tmp_path / "other.safetensors", tmp_path / "absent"
    text.write_text("this is a text file of more than eight bytes")
    save_file({"a": torch.zeros(2)}, other)
    odd = tmp_path / "odd"
    odd.write_bytes((2).to_bytes(8, "little") + b"[]")
    noise = tmp_path / "noise"
    noise.write_bytes((3).to_bytes(8, "little") + b"{{{")
    for path, words in (
        (text, "not a model file"), (other, "not a landcover model"), (absent, "cannot open"),
        (odd, "not a model file"), (noise, "not a model file"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=words):
            load_bundle(path)


def test_a_newer_or_spoilt_header_is_refused(bundle, tmp_path):
    path = save_bundle(tmp_path / "m", bundle)
    rewrite(path, lambda about: about.update(format=99))
    with pytest.raises(ModelError, match="newer version"):
        load_bundle(path)
    rewrite(path, lambda about: about.update(format="x"))
    with pytest.raises(ModelError, match="header of the model"):
        read_header(path)
    for change in (
        lambda about: about.pop("units"),
        lambda about: about["specs"][0].update(depth=3),
        lambda about: about["specs"][0].update(encoder="resnet19"),
        lambda about: about["classes"].pop(),
    ):
        rewrite(save_bundle(path, bundle), change)
        with pytest.raises(ModelError, match="model"):
            load_bundle(path)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match="beyond its end"):
        read_header(path)


def test_a_model_that_does_not_fit_itself_is_refused(bundle):
    for wrong in ({"members": ()}, {"shares": (1.0,)}, {"units": ("DN",)}, {"temperature": 0.0}, {"gsd_m": -1.0}):
        with pytest.raises(ModelError):
            replace(bundle, **wrong)
    with pytest.raises(ModelError, match="does not fit bands"):
        replace(bundle, members=(build_network(NetworkSpec(3, 3, encoder="none")),) * 2)
    with pytest.raises(ModelError, match="not JSON"):
        to_bytes(replace(bundle, provenance={"x": object()}))


@pytest.mark.skipif(os.name == "nt", reason="a file in the way of a folder reads otherwise there")
def test_a_folder_that_cannot_be_written_is_named(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the model"):
        save_bundle(tmp_path / "file" / "m", bundle)
