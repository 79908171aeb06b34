"""Scenes block by block over Dask: which blocks are out, and what becomes of a scene when one fails.

The caller's process keeps the stores and journals; workers map blocks and give their pixels back. So a worker that is
lost loses nothing but its blocks, which Dask gives to others; and the caller, ended in any way, continues
like a run in one process. As soon as the last block of a scene is out, the blocks of the next one follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pipeline.errors import OutputError, PipelineError, SceneError
from pipeline.inference.predict import Run, open_run
from pipeline.inference.steps import step_blocks
from pipeline.scale.cluster import (
    MappedBlock,
    SceneTask,
    map_block,
    pack,
    plan_task,
    refuse_other_versions,
    unpacked,
    who_sees,
)

if TYPE_CHECKING:
    from pipeline.inference.plan import Plan
    from pipeline.inference.rows import Key
    from pipeline.inference.stream import Writing
    from pipeline.model.bundle import ModelBundle

Result = TypeVar("Result")

# Times that Dask tries again what failed.
RETRIES = 2
# Pixels of a block, at most, unless one step has more: some seconds of a core's work, a few megabytes to send back.
BLOCK_PX = 4_000_000
# Blocks that wait or run per worker: one runs, one is at hand.
_AHEAD = 2
# Blocks per worker that a scene is cut into, where it has so many steps: the last ones should end together.
_SHARES = 4


@dataclass(frozen=True)
class SceneWork(Generic[Result]):
    """One scene."""

    name: str  # For messages
    task: SceneTask  # What the workers are to map
    out: Path  # Folder of its stores and journal
    # Writes its maps once all is mapped, given the journal's key; done by a worker that sees ``out``, else by the
    # caller
    finish: Callable[[Key], Result]
    progress: Callable[[int, int], None] | None = None  # Called with pixels done and pixels in all


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What became of a scene: what ``finish`` gave, or the one-line reason why not."""

    name: str
    result: Result | None = None
    error: str = ""


@dataclass(eq=False)
class _Open(Generic[Result]):
    """A scene in work: blocks to give out, and the number of those that are out."""

    work: SceneWork[Result]
    run: Run
    writing: Writing
    stack: ExitStack
    blocks: deque[tuple[int, ...]]
    out: int = 0
    error: str = ""


def map_over_dask(
    works: Iterator[SceneWork[Result] | Done[Result]],
    *, bundle: ModelBundle, client: Any, report: Callable[[Done[Result]], None],
) -> None:  # fmt: skip
    """Map scenes; one that fails does not stop the others.

    A scene that cannot be opened comes as its Done; ``report`` is called with each outcome as it comes.

    Raises:
        ConfigError: workers of another version.
        OutputError: the scheduler is lost; what was mapped is kept, the same command continues.
    """
    _Queue(works, bundle, client, report).run()


@dataclass(eq=False)
class _Queue(Generic[Result]):
    _works: Iterator[SceneWork[Result] | Done[Result]]
    _bundle: ModelBundle
    _client: Any
    _report: Callable[[Done[Result]], None]
    _open: list[_Open[Result]] = field(default_factory=list)
    _receivers: dict[Any, Callable[[Any], None]] = field(default_factory=dict)

    def run(self) -> None:
        from distributed import as_completed

        self._client.wait_for_workers(1)
        # Those that join later refuse what they are given (see SceneTask).
        refuse_other_versions(self._client)
        self._done: Any = as_completed(loop=self._client.loop)  # type: ignore[no-untyped-call]
        try:
            self._feed()
            for future in self._done:
                self._receivers.pop(future)(future)
                self._feed()
        except (CancelledError, OSError) as err:
            raise OutputError(
                "the Dask scheduler is lost", got=err, fix="start it and run the same command again: it continues"
            ) from err
        finally:
            self._client.cancel(list(self._receivers))
            for scene in self._open:
                _shut(scene)

    def _submit(self, receive: Callable[[Any], None], *call: Any, priority: int) -> None:
        future = self._client.submit(unpacked, pack(*call), pure=False, retries=RETRIES, priority=priority)
        self._receivers[future] = receive
        self._done.add(future)

    def _feed(self) -> None:
        """Keep every worker busy: blocks of the scenes in work first, then of the next scene."""
        workers = max(len(self._client.nthreads()), 1)
        while len(self._receivers) < _AHEAD * workers:
            scene = next((scene for scene in self._open if scene.blocks and not scene.error), None)
            if scene is not None:
                self._give_out(scene, scene.blocks.popleft())
                continue
            work = next(self._works, None)
            if work is None:
                return
            if isinstance(work, Done):
                self._report(work)
            else:
                self._begin(work, workers)

    def _begin(self, work: SceneWork[Result], workers: int) -> None:
        stack = ExitStack()
        try:
            run = open_run(
                self._bundle, work.task.source, out=work.out, settings=work.task.settings,
                planner=lambda *_: self._plan(work.task),
            )  # fmt: skip
            stack.callback(run.close)
            writing = stack.enter_context(run.writing(work.progress))
        except PipelineError as err:
            stack.close()
            self._report(Done(work.name, error=str(err)))
            return
        total = sum(run.steps.pixels[step] for step in run.left)
        size = min(BLOCK_PX, -(-total // (_SHARES * workers)))
        scene = _Open(work, run, writing, stack, deque(step_blocks(run.steps, run.left, block_px=size)))
        self._open.append(scene)
        if not scene.blocks:
            self._complete(scene)

    def _plan(self, task: SceneTask) -> Plan:
        future = self._client.submit(unpacked, pack(plan_task, task), pure=False, retries=RETRIES, priority=1)
        try:
            plan: Plan = future.result()
        except (PipelineError, OSError, CancelledError):
            raise
        except Exception as err:
            raise SceneError("scene cannot be planned", path=task.source.path, got=err) from err
        return plan

    def _give_out(self, scene: _Open[Result], block: tuple[int, ...]) -> None:
        scene.out += 1

        def receive(future: Any) -> None:
            scene.out -= 1
            if not scene.error:
                scene.error = _why(future) or _keep(scene, future.result())
            if scene.error or not (scene.out or scene.blocks):
                self._complete(scene)

        call = (map_block, scene.work.task, scene.run.steps.plan, block)
        self._submit(receive, *call, priority=-len(self._open))

    def _complete(self, scene: _Open[Result]) -> None:
        """Close a scene of which nothing is out any more, and have its maps written."""
        if scene.out or scene not in self._open:
            return
        self._open.remove(scene)
        closing = _shut(scene)
        work, error = scene.work, scene.error or closing
        if error:
            self._report(Done(work.name, error=error))
        elif who_sees(self._client, work.out / "journal.jsonl"):

            def receive(future: Any) -> None:
                error = _why(future)
                self._report(Done(work.name, error=error) if error else _outcome(work.name, future.result()))

            self._submit(receive, _finish, work.finish, scene.run.key, priority=10)
        else:
            self._report(_outcome(work.name, _finish(work.finish, scene.run.key)))


def _keep(scene: _Open[Result], made: MappedBlock) -> str:
    """Have the pixels of a block written; what went wrong with it."""
    try:
        for window, layers in made.windows:
            scene.writing.put(window, layers)
        for step, pixels in made.steps:
            scene.writing.done(step, pixels=pixels)
    except PipelineError as err:
        return str(err)
    return ""


def _shut(scene: _Open[Result]) -> str:
    """Write what waits, give the folder back; what went wrong with it."""
    try:
        scene.stack.close()
    except PipelineError as err:
        return str(err)
    return ""


def _finish(finish: Callable[[Key], Result], key: Key) -> Result | PipelineError:
    """A user's error is the scene's outcome, not to be tried again."""
    try:
        return finish(key)
    except PipelineError as err:
        return OutputError(str(err))


def _outcome(name: str, found: Result | PipelineError) -> Done[Result]:
    return Done(name, error=str(found)) if isinstance(found, PipelineError) else Done(name, found)


def _why(future: Any) -> str:
    """Why Dask gave up; "" where it did not. Workers that were killed are its own business until too many were."""
    if future.status == "finished":
        return ""
    if future.status == "cancelled":
        return "cancelled by the scheduler"
    error = future.exception()
    return str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}".split("\n", 1)[0]
