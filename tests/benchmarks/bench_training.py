"""Training speed: chips per second of the loop as a share of the bare forward-backward step; floor 0.9."""

from __future__ import annotations

import time

import torch

from pipeline.model.network import NetworkSpec, build_network
from pipeline.training.batches import Batches, ContextSet
from pipeline.training.context import network_loss
from pipeline.training.settings import ContextSettings

STEPS = 6


def run() -> dict[str, float]:
    """``share``: seconds of bare forward-backward steps over those of batch, augmentation, loss and step."""
    spec = NetworkSpec(10, 8, stem_stride=4, depth=4)
    network = build_network(spec)
    settings = ContextSettings(steps=STEPS)
    generator = torch.Generator().manual_seed(0)
    chips = ContextSet(
        torch.randn((32, 10, 64, 64), generator=generator),
        torch.randint(0, 8, (32, 64, 64), generator=generator).to(torch.uint8),
        torch.ones(32, 64, 64),
        torch.full((32, 8, 64, 64), 0.125).half(),
        torch.ones(32, 64, 64, dtype=torch.bool),
        torch.ones(32, dtype=torch.float64),
    )
    batches = Batches(chips, steps=STEPS, batch=settings.batch, seed=0)
    fixed = batches.batch(0)
    network(fixed[0]).mean().backward()
    bare = loop = 0.0
    for step in range(STEPS):  # in turn, so that other work on the machine slows both alike
        start = time.perf_counter()
        network(fixed[0]).mean().backward()
        middle = time.perf_counter()
        batch = batches.batch(step)
        network_loss(network(batch[0]), batch, settings).backward()
        bare += middle - start
        loop += time.perf_counter() - middle
    return {"share": bare / loop, "chips_per_s": STEPS * settings.batch / loop}


if __name__ == "__main__":
    print(run())
