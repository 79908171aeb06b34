"""Two processes that learn together (DDP over gloo) learn what one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline.training.loop import LAST, train_context
from pipeline.training.module import Lessons

from pipeline.errors import ModelError
from pipeline.model.network import Network, build_network
from pipeline.model.spec import NetworkSpec
from pipeline.training.settings import FitSettings

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = FitSettings(steps=4, batch=4, dropout=0.0, gain=0.0, shift=0.0, noise=0.0, lr=1e-2)
SIDE, CLASSES = 16, 3


def network() -> Network:
    torch.manual_seed(0)
    return build_network(NetworkSpec(2, CLASSES, depth=2, decoder_channels=(8, 8), spectral_channels=8, dropout=0.0))


def lessons() -> Lessons:
    """Copies of one chip: every share of a batch has the same mean and variance, so shares add up to the whole."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(1, 2, SIDE, SIDE)).astype(np.float32)).repeat(6, 1, 1, 1)
    index = torch.from_numpy(rng.integers(0, CLASSES, (1, SIDE, SIDE)).astype(np.uint8)).repeat(6, 1, 1)
    target = torch.full((6, CLASSES, SIDE, SIDE), 1.0 / CLASSES, dtype=torch.float16)
    asked = torch.ones(6, SIDE, SIDE, dtype=torch.bool)
    return Lessons(x, index, torch.ones(6, SIDE, SIDE), target, asked, torch.ones(6, dtype=torch.float64))


def learn(
    folder: Path, *, held: Lessons | None = None, resume: bool = False, **changes: float
) -> tuple[Network, list[dict[str, float]]]:
    learned = network()
    rows = train_context(
        [learned], lessons(), held, settings=replace(SETTINGS, **changes), folder=folder, resume=resume, progress=None
    )
    return learned, rows


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_two_processes_learn_what_one_learns_and_keep_one_log_and_checkpoint(tmp_path: Path) -> None:
    alone, _ = learn(tmp_path / "one", held=lessons(), patience=2)
    both, rows = learn(tmp_path / "two", held=lessons(), patience=2, devices=2)
    # Weights without influence here move by the sign of their gradient's rounding (Adam): a share of all movement.
    start, found = dict(network().named_parameters()), dict(both.named_parameters())
    moved = sum(float((value - start[name]).detach().abs().sum()) for name, value in alone.named_parameters())
    apart = sum(float((value - found[name]).detach().abs().sum()) for name, value in alone.named_parameters())
    assert apart < 0.1 * moved
    assert not torch.allclose(network().head.weight, both.head.weight)
    assert any("val_loss" in row for row in rows)
    assert rows[-1]["step"] == SETTINGS.steps
    assert (tmp_path / "two" / LAST).is_file()
    assert not [path for path in (tmp_path / "two").iterdir() if ".part" in path.name]


def test_more_devices_than_chips_in_a_batch_are_refused() -> None:
    with pytest.raises(ModelError, match="every device needs a chip"):
        FitSettings(batch=4, devices=3, nodes=2)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_two_processes_end_with_the_average_of_their_weights(tmp_path: Path) -> None:
    averaged, _ = learn(tmp_path, devices=2, ema=0.5)
    stored = torch.load(tmp_path / LAST, weights_only=True)
    for name, value in averaged.state_dict().items():
        assert torch.equal(value, stored["state_dict"][f"members.0.{name}"])
    head = "members.0.head.weight"
    assert not torch.equal(stored["state_dict"][head], stored["current_model_state"][head])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_two_machines_learn_what_two_processes_of_one_learn_to_the_bit(tmp_path: Path) -> None:
    """Machines are two commands on this one that find each other by address and port, as they would elsewhere."""
    both, _ = learn(tmp_path / "one", held=lessons(), patience=2, devices=2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys; from pathlib import Path; import torch; from tests.training.test_devices import learn, lessons\n"
        "found, _ = learn(Path(sys.argv[1]), held=lessons(), patience=2, nodes=2)\n"
        "torch.save(found.state_dict(), Path(sys.argv[1]) / 'learned.pt')"
    )
    machines = []
    for rank in range(2):
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank)}
        command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / f"machine{rank}")]
        machines.append(
            subprocess.Popen(
                command, cwd=ROOT, env=os.environ | where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    try:
        said = [machine.communicate(timeout=300)[0].decode() for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    found = torch.load(tmp_path / "machine0" / "learned.pt", weights_only=True)
    for name, value in both.state_dict().items():
        assert torch.equal(value, found[name]), name
    # Checkpoints are the first machine's: another cannot go on without them.
    assert (tmp_path / "machine0" / LAST).is_file()
    assert not (tmp_path / "machine1" / LAST).exists()
    with pytest.raises(ModelError, match="no checkpoint on this machine"):
        learn(tmp_path / "machine1", resume=True, nodes=2)
