from __future__ import annotations

import torch

from pipeline.model.network import build_network
from pipeline.model.spec import NetworkSpec
from pipeline.training.pixels import COMPONENTS, Components

BANDS = 30
SPEC = NetworkSpec(
    BANDS, 3, encoder="none", spectral_channels=16, spectral_kernels=(1, 1), surroundings=True, dropout=0.0
)


def narrow_bands(pixels: int = 500) -> torch.Tensor:
    """Features float32 [pixel, feature] that are nearly one: a common brightness, four small shapes, some noise."""
    generator = torch.Generator().manual_seed(0)
    count = 5 * BANDS
    shapes = torch.randn(4, count, generator=generator)
    common = torch.randn(pixels, 1, generator=generator) + 0.3
    small = 0.05 * torch.randn(pixels, 4, generator=generator)
    return common + small @ shapes + 0.001 * torch.randn(pixels, count, generator=generator)


def scores(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a network makes of features that its first layer would have computed."""
    out = x[:, :, None, None]
    for layer in list(network.spectral)[1:]:
        out = layer(out)
    return network.head(out).flatten(1)


def test_components_with_variance_have_a_deviation_of_one() -> None:
    features = narrow_bands()
    found = Components(build_network(SPEC), features).of(features)
    assert found.shape == (500, COMPONENTS)
    assert torch.allclose(found.mean(0), torch.zeros(COMPONENTS), atol=1e-3)
    assert torch.allclose(found[:, :5].std(0), torch.ones(5), rtol=1e-3)
    assert float(found[:, 5:].std(0).max()) < 0.5


def test_the_folded_network_does_what_was_learned() -> None:
    torch.manual_seed(1)
    features, network = narrow_bands(), build_network(SPEC)
    wide = network.spectral[1][0].weight.shape
    components = Components(network, features)
    x = components.of(features)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    network.train()
    for _ in range(20):
        optimiser.zero_grad()
        (scores(network, x) - x[:, 1:4]).square().mean().backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        learned = scores(network, x)
        components.fold()
        folded = scores(network, features)
    assert network.spectral[1][0].weight.shape == wide
    assert learned.std() > 0.05
    assert torch.allclose(folded, learned, atol=2e-3)
