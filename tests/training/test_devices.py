"""Two processes that learn together (DDP over gloo) learn what one does."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from tests.fakes.forks import forked
from tests.training.worlds import changed

if TYPE_CHECKING:
    from pathlib import Path

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
    with pytest.MonkeyPatch.context() as patch:
        for jitter in ("GAIN", "SHIFT", "NOISE"):
            patch.setattr(batches, jitter, 0.0)
        rows = train_context(
            learned, copies(), held, settings=settings, folder=folder, deadline=Deadline(), resume=resume
        )
    return learned, rows


def machine(folder: Path) -> None:
    """One of two machines."""
    found, _ = learn(folder, held=copies(), patience=2, nodes=2)
    torch.save(found.state_dict(), folder / "learned.pt")


@dataclass(frozen=True)
class Learned:
    """What two processes learned, where, and the rows of their log."""

    folder: Path
    network: Network
    rows: list[dict[str, float]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("two")
    return Learned(folder, *learn(folder, held=copies(), patience=2, devices=2))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_two_processes_learn_what_one_learns_with_one_log(two: Learned, tmp_path: Path) -> None:
    alone, _ = learn(tmp_path, held=copies(), patience=2)
    # Weights without influence here move by the sign of their gradient's rounding (Adam): a share of all movement.
    start, found = dict(network().named_parameters()), dict(two.network.named_parameters())
    moved = sum(float((value - start[name]).detach().abs().sum()) for name, value in alone.named_parameters())
    apart = sum(float((value - found[name]).detach().abs().sum()) for name, value in alone.named_parameters())
    assert apart < 0.1 * moved
    assert not torch.allclose(network().head.weight, two.network.head.weight)
    assert any("val_loss" in row for row in two.rows)
    assert two.rows[-1]["step"] == STEPS
    assert (two.folder / LAST).is_file()
    assert not [path for path in two.folder.iterdir() if ".part" in path.name]


def test_more_devices_than_chips_in_a_batch_are_refused() -> None:
    with pytest.raises(ValidationError, match="every device needs a chip"):
        changed(TrainingSettings(), {"context.batch": 4, "context.devices": 3, "context.nodes": 2})


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_two_machines_learn_what_two_processes_do_to_the_bit(two: Learned, tmp_path: Path) -> None:
    """Machines are two processes on this one that find each other by address and port, as they would elsewhere."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log.txt"
    with ExitStack() as stack:
        machines = []
        for rank in range(2):
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank)}
            folder = tmp_path / f"machine{rank}"
            machines.append(stack.enter_context(forked(machine, folder, log=log, environment=where)))
        for started in machines:
            started.join(300)
        assert [started.exitcode for started in machines] == [0, 0], log.read_text()
    found = torch.load(tmp_path / "machine0" / "learned.pt", weights_only=True)
    for name, value in two.network.state_dict().items():
        assert torch.equal(value, found[name]), name
    # Checkpoints are the first machine's: another cannot go on without them.
    assert (tmp_path / "machine0" / LAST).is_file()
    assert not (tmp_path / "machine1" / LAST).exists()
    with pytest.raises(ModelError, match="no checkpoint on this machine"):
        learn(tmp_path / "machine1", resume=True, nodes=2)
