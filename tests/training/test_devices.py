"""Two processes that learn together (DDP over gloo) learn what one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.errors import ModelError
from pipeline.experts.settings import Deadline
from pipeline.model.network import Network, build_network
from pipeline.model.spec import NetworkSpec
from pipeline.training import batches
from pipeline.training.batches import ContextSet
from pipeline.training.context import LAST, train_context
from pipeline.training.settings import TrainingSettings
from tests.training.worlds import changed

ROOT = Path(__file__).resolve().parents[2]
STEPS = 4
SETTINGS = changed(
    TrainingSettings(),
    {"context.steps": STEPS, "context.batch": 4, "context.dropout": 0.0, "context.lr": 1e-2, "refit": False},
)
SIDE, CLASSES = 16, 3


def network() -> Network:
    torch.manual_seed(0)
    return build_network(NetworkSpec(2, CLASSES, depth=2, decoder_channels=(8, 8), spectral_channels=8, dropout=0.0))


def copies() -> ContextSet:
    """Copies of one chip: every share of a batch has the same mean and variance, so shares add up to the whole."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(1, 2, SIDE, SIDE)).astype(np.float32)).repeat(6, 1, 1, 1)
    index = torch.from_numpy(rng.integers(0, CLASSES, (1, SIDE, SIDE)).astype(np.uint8)).repeat(6, 1, 1)
    target = torch.full((6, CLASSES, SIDE, SIDE), 1.0 / CLASSES, dtype=torch.float16)
    soft = torch.ones(6, SIDE, SIDE, dtype=torch.bool)
    return ContextSet(x, index, torch.ones(6, SIDE, SIDE), target, soft, torch.ones(6, dtype=torch.float64))


def learn(
    folder: Path, *, held: ContextSet | None = None, resume: bool = False, **changes: float
) -> tuple[Network, list[dict[str, float]]]:
    learned = network()
    settings = changed(SETTINGS, {f"context.{name}": value for name, value in changes.items()})
    batches.GAIN = batches.SHIFT = batches.NOISE = 0.0
    rows = train_context(learned, copies(), held, settings=settings, folder=folder, deadline=Deadline(), resume=resume)
    return learned, rows


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_two_processes_learn_what_one_learns_with_one_log(tmp_path: Path) -> None:
    alone, _ = learn(tmp_path / "one", held=copies(), patience=2)
    both, rows = learn(tmp_path / "two", held=copies(), patience=2, devices=2)
    # Weights without influence here move by the sign of their gradient's rounding (Adam): a share of all movement.
    start, found = dict(network().named_parameters()), dict(both.named_parameters())
    moved = sum(float((value - start[name]).detach().abs().sum()) for name, value in alone.named_parameters())
    apart = sum(float((value - found[name]).detach().abs().sum()) for name, value in alone.named_parameters())
    assert apart < 0.1 * moved
    assert not torch.allclose(network().head.weight, both.head.weight)
    assert any("val_loss" in row for row in rows)
    assert rows[-1]["step"] == STEPS
    assert (tmp_path / "two" / LAST).is_file()
    assert not [path for path in (tmp_path / "two").iterdir() if ".part" in path.name]


def test_more_devices_than_chips_in_a_batch_are_refused() -> None:
    with pytest.raises(ValidationError, match="every device needs a chip"):
        changed(TrainingSettings(), {"context.batch": 4, "context.devices": 3, "context.nodes": 2})


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_two_machines_learn_what_two_processes_do_to_the_bit(tmp_path: Path) -> None:
    """Machines are two commands on this one that find each other by address and port, as they would elsewhere."""
    both, _ = learn(tmp_path / "one", held=copies(), patience=2, devices=2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys; from pathlib import Path; import torch; from tests.training.test_devices import learn, copies\n"
        "found, _ = learn(Path(sys.argv[1]), held=copies(), patience=2, nodes=2)\n"
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
