"""EfficientNet-B4's first stages: those of the published graphs, and the same without gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.model import efficientnet
from pipeline.model.encoder import Encoder
from pipeline.model.network import build_network, fuse_for_inference
from pipeline.model.records import shipped_records
from pipeline.model.spec import NetworkSpec
from pipeline.model.transfer import load_into
from pipeline.model.weights import record_weights

onnx = pytest.importorskip("onnx")
DEPTH = 4


@pytest.fixture(scope="module")
def record():
    pytest.importorskip("ukis_csmask", reason="pip install 'landcover-pipeline[weights]'")
    return next(item for item in shipped_records() if item.name == "ukis_csmask_4b_l1c")


def encoder_of(tensors, *, gated, depth=DEPTH):
    stages = efficientnet.efficientnet_stages(4, depth=depth, gated=gated)
    widths = [width for _, _, width, _ in efficientnet.STAGES[:depth]]
    encoder = Encoder(stages, channels=widths, strides=[2 << i for i in range(depth)])
    load_into(encoder, tensors, name="test")
    return encoder.eval()


def test_every_stride_is_that_of_the_published_graph(record):
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = onnx.load(str(record.cache))
    names = [f"/model/encoder/_blocks.{last}/Add_output_0" for last in (1, 5, 9, 15)]
    graph.graph.output.extend(onnx.helper.make_tensor_value_info(name, 10, None) for name in names)
    x = torch.randn(1, 4, 256, 256, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = session.run(names, {"input": x.numpy()})
    with torch.no_grad():
        ours = encoder_of(record_weights(record).tensors, gated=True)(x)
    for found, expected in zip(ours, theirs, strict=True):
        # The graph computes in half precision, with eleven bits.
        difference = np.abs(found.numpy() - expected.astype(np.float32))
        assert difference.max() < 0.01 * np.abs(expected).max()
        assert difference.mean() < 5e-3 * np.abs(expected).astype(np.float32).mean()


def test_features_are_those_of_segmentation_models_pytorch(record):
    from segmentation_models_pytorch.encoders import get_encoder

    tensors = record_weights(record).tensors
    theirs = get_encoder("efficientnet-b4", in_channels=4, depth=3, weights=None).eval()
    known = theirs.state_dict()
    left_out = {name for name in known if not name.endswith("num_batches_tracked")} - set(tensors)
    assert all(name.startswith(("_conv_head", "_bn1")) for name in left_out)
    theirs.load_state_dict({name: tensors.get(name, value) for name, value in known.items()})
    x = torch.randn(1, 4, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for found, expected in zip(encoder_of(tensors, gated=True)(x)[1:3], theirs(x)[2:4], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_folded_gates_do_what_the_gates_of_one_chip_do(record):
    tensors = record_weights(record).tensors
    gated = encoder_of(tensors, gated=True, depth=3)
    x = torch.randn(1, 4, 32, 40, generator=torch.Generator().manual_seed(0))
    plain = encoder_of(efficientnet.fold_gates(gated.stages, x), gated=False, depth=3)
    with torch.no_grad():
        for found, expected in zip(plain(x), gated(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_without_gates_a_pixel_does_not_depend_on_the_chip():
    torch.manual_seed(0)
    spec = NetworkSpec(3, 2, encoder="efficientnet_b4", depth=2, decoder_channels=(8,), spectral_channels=0)
    network = build_network(spec).eval()
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        whole = network(x)
        torch.testing.assert_close(network(x[..., :64, :64])[..., :16, :16], whole[..., :16, :16])
        torch.testing.assert_close(fuse_for_inference(network)(x), whole, rtol=1e-3, atol=1e-4)
    assert network.stride == 4
