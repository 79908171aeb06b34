from __future__ import annotations

import re

import pytest
import torch
import torchvision

from pipeline.model.encoder import DEPTHS, build_encoder
from pipeline.model.spec import NetworkSpec


@pytest.mark.parametrize("architecture", sorted(DEPTHS))
def test_an_encoder_is_torchvisions_with_its_weights(architecture: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(architecture, weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = build_encoder(NetworkSpec(3, 2, encoder=architecture, depth=5, stem_stride=4)).eval()
    state = {re.sub(r"^stages\.\d+\.", "", name): name for name in ours.state_dict()}
    wanted = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    assert set(state) == set(wanted)
    ours.load_state_dict({state[name]: value for name, value in wanted.items()})
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x)))))
        for layer in (theirs.layer2, theirs.layer3, theirs.layer4):
            expected = layer(expected)
        assert torch.allclose(ours(x)[-1], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_random_weights_are_drawn_as_torchvision_draws_them() -> None:
    torch.manual_seed(0)
    ours = dict(build_encoder(NetworkSpec(3, 2, encoder="resnet18", depth=5)).named_parameters())
    theirs = dict(torchvision.models.resnet18(weights=None).named_parameters())
    for name, value in ours.items():
        own = theirs[re.sub(r"^stages\.\d+\.", "", name)]
        if value.numel() > 10_000:
            assert value.std().item() == pytest.approx(own.std().item(), rel=0.05)
