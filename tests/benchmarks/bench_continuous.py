"""A continuous map beside the class map of the same network, as ``landcover predict`` makes them, in CPU seconds."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.model.bundle import ModelBundle, save_bundle
from pipeline.model.network import build_network
from pipeline.quantity import CHANNELS, Quantity
from tests.benchmarks.bench_mapping import measured
from tests.benchmarks.landscape import DEFAULT, TUNED, landscape, trained_bundle

SIDE_PX = int(os.environ.get("LANDCOVER_BENCH_PX", "1024"))
ROUNDS = 2


def of_values(bundle: ModelBundle) -> ModelBundle:
    """The same networks with the head of a quantity: its weights are those of the first classes."""
    members = []
    for member in bundle.members:
        network = build_network(replace(member.spec, classes=CHANNELS))
        state = {
            key: value[:CHANNELS] if key.startswith(("head.", "columns.")) else value
            for key, value in member.state_dict().items()
        }
        network.load_state_dict(state)
        members.append(network.eval())
    quantity = Quantity("biomass", "t/ha", 0.0, None, "sqrt").fitted(np.random.default_rng(0).gamma(2.0, 40.0, 500))
    return replace(bundle, members=tuple(members), scheme=quantity.scheme, quantity=quantity)


def run(side_px: int = SIDE_PX) -> dict[str, float]:
    """CPU seconds of both, the least of some rounds, and their ratio."""
    torch.manual_seed(0)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = landscape(folder / "scene.tif", side_px=side_px)
        for network, specs in {"pixels": DEFAULT[:1], "encoder": TUNED["resnet"]}.items():
            classes = trained_bundle(specs, steps=20)
            for kind, bundle in {"classes": classes, "values": of_values(classes)}.items():
                what = f"{network}_{kind}"
                model = save_bundle(folder / f"{what}.safetensors", bundle)
                rounds = [
                    measured("landcover", scene.path, str(folder / f"{what}{i}"), str(model)) for i in range(ROUNDS)
                ]
                found[f"{what}_cpu_s"] = min(item["cpu_s"] for item in rounds)
            ratio = found[f"{network}_values_cpu_s"] / found[f"{network}_classes_cpu_s"]
            found[f"{network}_values_over_classes"] = ratio
    print({key: round(value, 3) for key, value in found.items()}, flush=True)
    return found
