"""Scene by scene and block by block over Dask: who does what when, and what happens when somebody fails.

The caller's process keeps the stores and journals; workers map blocks and give their pixels back. So a worker that is
lost loses nothing but the blocks in its hands, which others do again; and the caller, ended in any way, continues like
a run in one process. As soon as the last block of a scene is out, the blocks of the next one follow.
"""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pipeline.errors import OutputError, PipelineError, SceneError
from pipeline.inference.predict import Run, open_run
from pipeline.inference.steps import blocks_of
from pipeline.scale.blocks import Mapped, SceneTask, map_block, pack, plan_task, unpacked
from pipeline.scale.cluster import refuse_other_versions, who_sees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipeline.inference.journal import Key
    from pipeline.inference.plan import Plan
    from pipeline.inference.stream import Writing
    from pipeline.model.bundle import ModelBundle

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# Times that a block is tried again, elsewhere if there is an elsewhere.
RETRIES = 2
# Pixels of a block, at most, unless one step has more: some seconds of a core's work, a few megabytes to send back.
BLOCK_PX = 4_000_000
# Blocks that wait or run per worker: one runs, one is at hand.
_AHEAD = 2
# Blocks per worker that a scene is cut into, where it has so many steps: the last ones should end together.
_SHARES = 4


@dataclass(frozen=True)
class SceneWork(Generic[Result]):
    """One scene.

    Attributes:
        name: For messages.
        task: What the workers are to map.
        out: Folder of its stores and journal.
        finish: Writes its maps once all is mapped, given the journal's key; done by a worker that sees ``out``, else by
            the caller.
        progress: Called with pixels done and pixels in all.
    """

    name: str
    task: SceneTask
    out: Path
    finish: Callable[[Key], Result]
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What became of a scene: what ``finish`` gave, or the one-line reason why not."""

    name: str
    result: Result | None = None
    error: str = ""


@dataclass(eq=False)
class _Open(Generic[Result]):
    """A scene in work."""

    work: SceneWork[Result]
    run: Run
    writing: Writing
    stack: ExitStack
    blocks: deque[tuple[int, ...]]
    out: int = 0
    tries: dict[tuple[int, ...], int] = field(default_factory=dict)
    avoid: dict[tuple[int, ...], set[str]] = field(default_factory=dict)
    error: str = ""


def map_over_dask(
    works: Iterator[SceneWork[Result] | Done[Result]],
    *,
    bundle: ModelBundle,
    client: Any,
    report: Callable[[Done[Result]], None],
) -> None:
    """Map scenes; one that fails does not stop the others.

    Args:
        works: Scenes as they are opened, one when it is needed; a scene that cannot be opened comes as its Done.
        bundle: The model.
        client: See ``pipeline.scale.cluster``.
        report: Called with each scene's outcome as it comes.

    Raises:
        ConfigError: workers of another version.
        OutputError: the scheduler is lost; what was mapped is kept, the same command continues.
    """
    _Conductor(works, bundle, client, report).run()


class _Conductor(Generic[Result]):
    def __init__(
        self,
        works: Iterator[SceneWork[Result] | Done[Result]],
        bundle: ModelBundle,
        client: Any,
        report: Callable[[Done[Result]], None],
    ) -> None:
        self._works, self._bundle, self._client, self._report = works, bundle, client, report
        self._open: list[_Open[Result]] = []
        self._futures: dict[Any, tuple[str, _Open[Result] | SceneWork[Result], tuple[int, ...]]] = {}
        self._more = True

    def run(self) -> None:
        from distributed import as_completed

        self._client.wait_for_workers(1)
        # Those that join later refuse what they are given (see SceneTask).
        refuse_other_versions(self._client)
        self._done: Any = as_completed(loop=self._client.loop)  # type: ignore[no-untyped-call]
        try:
            self._feed()
            for future in self._done:
                self._receive(future)
                self._feed()
        except (CancelledError, OSError) as err:
            raise OutputError(
                "the Dask scheduler is lost", got=err, fix="start it and run the same command again: it continues"
            ) from err
        finally:
            self._client.cancel(list(self._futures))
            for scene in self._open:
                self._shut(scene)

    def _workers(self) -> list[str]:
        return list(self._client.nthreads())

    def _feed(self) -> None:
        """Keep every worker busy: blocks of the scenes in work first, then of the next scene."""
        workers = max(len(self._workers()), 1)
        while len(self._futures) < _AHEAD * workers:
            scene = next((scene for scene in self._open if scene.blocks and not scene.error), None)
            if scene is not None:
                self._submit(scene, scene.blocks.popleft())
            elif not self._begin(workers):
                return

    def _begin(self, workers: int) -> bool:
        """Open the next scene; False where there is none."""
        work = next(self._works, None)
        if work is None:
            return False
        if isinstance(work, Done):
            self._report(work)
            return True
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
            return True
        left = run.left
        total = sum(run.steps.pixels[step] for step in left)
        size = min(BLOCK_PX, -(-total // (_SHARES * workers)))
        scene = _Open(work, run, writing, stack, deque(blocks_of(run.steps, left, block_px=size)))
        self._open.append(scene)
        if not scene.blocks:
            self._complete(scene)
        return True

    def _plan(self, task: SceneTask) -> Plan:
        future = self._client.submit(unpacked, pack(plan_task, task), pure=False, retries=RETRIES, priority=1)
        try:
            plan: Plan = future.result()
        except (PipelineError, OSError, CancelledError):
            raise
        except Exception as err:
            raise SceneError("scene cannot be planned", path=task.source.path, got=err) from err
        return plan

    def _submit(self, scene: _Open[Result], block: tuple[int, ...]) -> None:
        avoid = scene.avoid.get(block, set())
        others = [address for address in self._workers() if address not in avoid] if avoid else []
        where = {"workers": others, "allow_other_workers": True} if others else {}
        call = pack(map_block, scene.work.task, scene.run.steps.plan, block, tuple(avoid) if others else ())
        future = self._client.submit(unpacked, call, pure=False, priority=-len(self._open), **where)
        scene.out += 1
        self._watch(future, ("block", scene, block))

    def _watch(self, future: Any, about: tuple[str, _Open[Result] | SceneWork[Result], tuple[int, ...]]) -> None:
        self._futures[future] = about
        self._done.add(future)

    def _receive(self, future: Any) -> None:
        kind, about, block = self._futures.pop(future)
        if kind == "finish":
            self._finished(future, about)  # type: ignore[arg-type]
        else:
            self._block(future, about, block)  # type: ignore[arg-type]

    def _block(self, future: Any, scene: _Open[Result], block: tuple[int, ...]) -> None:
        scene.out -= 1
        if scene.error:
            self._complete(scene)
            return
        made = future.result() if future.status == "finished" else Mapped(error=_why(future))
        try:
            if made.declined:
                self._submit(scene, block)
            elif made.error:
                self._again(scene, block, made)
            else:
                for window, layers in made.windows:
                    scene.writing.put(window, layers)
                for step, pixels in made.steps:
                    scene.writing.done(step, pixels=pixels)
        except PipelineError as err:
            scene.error = str(err)
        if scene.error or not (scene.out or scene.blocks):
            self._complete(scene)

    def _again(self, scene: _Open[Result], block: tuple[int, ...], made: Mapped) -> None:
        """Try a block that failed once more, somewhere else; or give its scene up."""
        tries = scene.tries.get(block, 0) + 1
        scene.tries[block] = tries
        log.warning("%s: a block failed on %s: %s", scene.work.name, made.worker or "a worker", made.error)
        if tries > RETRIES:
            scene.error = made.error
            return
        scene.avoid.setdefault(block, set()).add(made.worker)
        self._submit(scene, block)

    def _complete(self, scene: _Open[Result]) -> None:
        """Close a scene of which nothing is out any more, and have its maps written."""
        if scene.out or scene not in self._open:
            return
        self._open.remove(scene)
        error = scene.error or self._shut(scene)
        if scene.error:
            self._shut(scene)
        if error:
            self._report(Done(scene.work.name, error=error))
        elif who_sees(self._client, scene.work.out / "journal.jsonl"):
            call = pack(_finish, scene.work.finish, scene.run.key)
            future = self._client.submit(unpacked, call, pure=False, retries=RETRIES, priority=10)
            self._watch(future, ("finish", scene.work, ()))
        else:
            self._report(_told(scene.work.name, _finish(scene.work.finish, scene.run.key)))

    def _shut(self, scene: _Open[Result]) -> str:
        """Write what waits, give the folder back; what went wrong with it."""
        try:
            scene.stack.close()
        except PipelineError as err:
            return str(err)
        return ""

    def _finished(self, future: Any, work: SceneWork[Result]) -> None:
        if future.status != "finished":
            self._report(Done(work.name, error=_why(future)))
        else:
            self._report(_told(work.name, future.result()))


def _finish(finish: Callable[[Key], Result], key: Key) -> Result | PipelineError:
    """A user's error is the scene's outcome, not to be tried again."""
    try:
        return finish(key)
    except PipelineError as err:
        return OutputError(str(err))


def _told(name: str, found: Result | PipelineError) -> Done[Result]:
    return Done(name, error=str(found)) if isinstance(found, PipelineError) else Done(name, found)


def _why(future: Any) -> str:
    """Why Dask gave up; workers that were killed are its own business until too many were."""
    if future.status == "cancelled":
        return "cancelled by the scheduler"
    error = future.exception()
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]
