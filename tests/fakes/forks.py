"""Processes of their own without the seconds of importing torch: forks of a server that has imported it once."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.context import ForkServerContext
    from multiprocessing.process import BaseProcess
    from pathlib import Path


def fork_server() -> ForkServerContext:
    """The server of this process, which starts with the first fork; what it has imported is tests.fakes.imported."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.fakes.imported"])
    return server


@contextmanager
def forked(
    target: Callable[..., object], *given: object, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[BaseProcess]:
    """A process that calls ``target`` and ends with the status it returns; killed at the end of the block.

    Args:
        target: A function of a module.
        given: Its arguments.
        log: Takes what the process writes to stdout and stderr, after what is in it.
        environment: Variables beside those of this process.
    """
    whole = dict(os.environ) | dict(environment or {})
    process = fork_server().Process(target=_call, args=(target, given, str(log), whole))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _call(target: Callable[..., object], given: tuple[object, ...], log: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    status = target(*given)
    if isinstance(status, int):
        raise SystemExit(status)
