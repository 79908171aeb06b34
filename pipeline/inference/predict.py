"""Map a scene: read, standardise, run the network, decide, write; side by side, in bounded memory, resumable.

A thread reads ahead, the caller's thread runs the network, a thread writes behind and keeps the journal. Between them
are queues of one or two tiles: nothing of scene size is ever in memory.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch

from pipeline.errors import OutputError
from pipeline.inference.areas import read_area
from pipeline.inference.blend import PERCENT_NODATA, HannBlender, classify
from pipeline.inference.journal import Journal, open_journal
from pipeline.inference.lock import FolderLock
from pipeline.inference.plan import Plan, PredictSettings, engine_of, journal_key, make_plan
from pipeline.inference.rows import RowStore
from pipeline.inference.stream import Loaded, Reading, Work, Writing
from pipeline.inference.tiles import Tile, plan_tiles
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.grid import Grid
    from pipeline.inference.areas import Area
    from pipeline.inference.engine import Engine
    from pipeline.legend import ClassScheme
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

log = logging.getLogger(__name__)
Progress = "Callable[[int, int], None]"
JOURNAL = "journal.jsonl"
_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


@dataclass(frozen=True)
class Prediction:
    """A mapped scene, as rows on disk; a context manager that closes them.

    Attributes:
        grid: Where the pixels lie.
        scheme: What the codes mean.
        layers: Stores by name: "codes" and "confidence" always; "probabilities", "entropy", "margin" if asked for.
        plan: What was decided.
        figures: "mpx" mapped, "seconds" and "mpx_per_s" (of all runs together), "tiles", "tiles_before" (done by an
            earlier run), JSON-ready.
        why_fresh: Why an earlier run in the same folder was not continued; "" where there was none or it was.
        lock: Keeps other runs out of the folder until the stores are closed.
    """

    grid: Grid
    scheme: ClassScheme
    layers: dict[str, RowStore]
    plan: Plan
    figures: dict[str, float]
    why_fresh: str = ""
    lock: FolderLock | None = None

    @property
    def codes(self) -> RowStore:
        """Codes uint8 [row, col]; 0 is nodata."""
        return self.layers["codes"]

    @property
    def confidence(self) -> RowStore:
        """Probability of the mapped class in percent, uint8 [row, col]; 255 is nodata."""
        return self.layers["confidence"]

    @property
    def probabilities(self) -> RowStore | None:
        """Percent uint8 [class, row, col]; 255 is nodata; None unless asked for."""
        return self.layers.get("probabilities")

    def tags(self) -> dict[str, Any]:
        """How it was mapped, for the map's tags: nothing that depends on time or place of the run."""
        return {"LANDCOVER_PREDICTION": self.plan.to_json()}

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stores."""
        self.close()

    def close(self) -> None:
        """Close the stores; the files stay, so that the same command finds its work done."""
        for store in self.layers.values():
            store.close()
        if self.lock is not None:
            self.lock.release()

    def remove(self) -> None:
        """Close and delete the stores and the journal: the maps have been written."""
        folder = self.codes.path.parent
        (folder / JOURNAL).unlink(missing_ok=True)
        for store in self.layers.values():
            store.close()
            store.path.unlink(missing_ok=True)
        self.close()


def predict_scene(
    bundle: ModelBundle,
    source: Source,
    *,
    out: Path,
    settings: PredictSettings | None = None,
    fresh: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Map one scene into stores of rows, continuing where an interrupted run of the same kind stopped.

    Args:
        bundle: The model.
        source: A scene, stack or composite with the model's bands; others are not read.
        out: Folder for the stores and the journal of this scene alone; made if needed.
        settings: How; defaults if None.
        fresh: Do not continue an earlier run.
        progress: Called with pixels done and pixels in all, from a thread of this run.

    Raises:
        SceneError: the scene lacks a band, or cannot be read (any more); what was mapped is kept.
        OutputError: the folder cannot be written, in use by another run, or the disk is full; the rest is kept.
        ConfigError: the settings cannot be met.
    """
    settings = settings or PredictSettings()
    source = source.select(bundle.bands)
    area = read_area(source.grid, aoi=settings.aoi, mask=settings.mask)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError("cannot make the folder", path=out, got=err.strerror) from err
    lock = FolderLock(out)
    stores: dict[str, RowStore] = {}
    try:
        journal, plan = _open(bundle, source, settings, out, fresh=fresh)
        stores = _stores(journal, settings, out, shape=source.grid.shape, classes=len(bundle.scheme))
        figures = _Job(bundle, source, settings, plan, journal, stores, area, progress).run()
    except BaseException:
        for store in stores.values():
            store.close()
        lock.release()
        raise
    return Prediction(source.grid, bundle.scheme, stores, plan, figures, journal.why_fresh, lock)


def _open(
    bundle: ModelBundle, source: Source, settings: PredictSettings, out: Path, *, fresh: bool
) -> tuple[Journal, Plan]:
    """The journal to continue and its plan, or a new one."""
    key = journal_key(bundle, source, settings)
    journal = open_journal(out / JOURNAL, key)
    whole = all((out / f"{name}.u8").exists() for name in settings.products.layers)
    if journal.resolved and whole and not fresh:
        return journal, Plan.from_json(journal.resolved)
    why = journal.why_fresh or ("stores of mapped rows are missing" if journal.resolved else "")
    why = "" if fresh else why
    if why:
        log.warning("%s: starting afresh: %s", source.id, why)
    plan = make_plan(bundle, source, settings)
    # The old journal goes first: a crash before the new one is written leaves stores that nobody trusts.
    (out / JOURNAL).unlink(missing_ok=True)
    for name in settings.products.layers:
        (out / f"{name}.u8").unlink(missing_ok=True)
    journal = Journal(out / JOURNAL, {}, why_fresh=why)
    _stores(journal, settings, out, shape=source.grid.shape, classes=len(bundle.scheme), close=True)
    journal.begin(key, resolved=plan.to_json())
    return journal, plan


def _stores(
    journal: Journal, settings: PredictSettings, out: Path, *, shape: tuple[int, int], classes: int, close: bool = False
) -> dict[str, RowStore]:
    """Stores of all layers, made where there is no journal of them yet."""
    stores = {}
    for name in settings.products.layers:
        path, layers = out / f"{name}.u8", classes if name == "probabilities" else 1
        if not journal.resolved:
            fill = NODATA if name == "codes" else PERCENT_NODATA
            RowStore.create(path, shape=shape, layers=layers, fill=fill).close()
        if not close:
            stores[name] = RowStore(path, shape=shape, layers=layers)
    return stores


@dataclass
class _Job:
    """One run over one scene."""

    bundle: ModelBundle
    source: Source
    settings: PredictSettings
    plan: Plan
    journal: Journal
    stores: dict[str, RowStore]
    area: Area | None
    progress: Callable[[int, int], None] | None
    _step_px: dict[int, int] = field(default_factory=dict)

    def run(self) -> dict[str, float]:
        """Map what is left; the figures of all runs together."""
        every = plan_tiles(
            self.source.grid,
            tile_px=self.plan.tile_px,
            halo_px=self.plan.halo_px,
            stride_px=self.plan.stride_px,
            shift_px=self.settings.shift_px,
        )
        works = self._works(every)
        left = [work for work in works if work.step not in self.journal.done]
        before = sum(len(work.tiles) for work in works) - sum(len(work.tiles) for work in left)
        if left:
            self._map(every, works, left)
        if not self.journal.finished:
            self.journal.add([], finished=True)
        mpx = sum(work.pixels for work in works) / 1e6
        seconds = self.journal.seconds
        return {
            "mpx": mpx, "seconds": seconds, "mpx_per_s": mpx / seconds if seconds else 0.0,
            "tiles": float(sum(len(work.tiles) for work in works)), "tiles_before": float(before),
        }  # fmt: skip

    def _works(self, every: Sequence[Tile]) -> list[Work]:
        """Portions for the network in the order of the map; the same whatever was done before."""
        mapped = [tile for tile in every if self.area is None or self.area.touches(tile.write)]
        size = self.plan.batch
        if self.settings.blend == "crop":
            groups = [tuple(mapped[i : i + size]) for i in range(0, len(mapped), size)]
            return [Work(number, group, ends_step=True) for number, group in enumerate(groups)]
        works = []
        for step, row in enumerate(_rows_of_tiles(every)):
            chosen = [tile for tile in row if tile in set(mapped)]
            groups = [tuple(chosen[i : i + size]) for i in range(0, len(chosen), size)] or [()]
            works += [Work(step, group, ends_step=group is groups[-1]) for group in groups]
        return works

    def _map(self, every: Sequence[Tile], works: Sequence[Work], left: Sequence[Work]) -> None:
        blender: HannBlender | None = None
        if self.settings.blend == "hann":
            blender = HannBlender(_rows_of_tiles(every), shape=self.source.grid.shape, classes=len(self.bundle.scheme))
            first = left[0].step
            if first:
                # The row of tiles before reaches into the rows that are not final: its sums are made again.
                blender.start(first)
                left = [work for work in works if work.step == first - 1] + list(left)
        threads = torch.get_num_threads()
        torch.set_num_threads(self.plan.threads)
        for work in works:
            self._step_px[work.step] = self._step_px.get(work.step, 0) + work.pixels
        done = sum(self._step_px[step] for step in self.journal.done)
        total = sum(self._step_px.values())
        writing = Writing(self.stores, self.journal, done_px=done, total_px=total, progress=self.progress)
        reading = Reading(self.source, self.bundle.preprocess, left, area=self.area, whole=blender is not None)
        try:
            engine = engine_of(self.bundle, self.plan.choice, threads=self.plan.threads)
            with reading, writing:
                for loaded in reading:
                    self._step(engine, loaded, blender, writing)
        except KeyboardInterrupt:
            log.warning("%s: stopped; the same command continues", self.source.id)
            raise
        finally:
            torch.set_num_threads(threads)

    def _step(self, engine: Engine, loaded: Loaded, blender: HannBlender | None, writing: Writing) -> None:
        work = loaded.work
        for tiles, keeps, chips in loaded.groups():
            scores, are_logits = self._scores(engine, chips)
            for tile, keep, score in zip(tiles, keeps, scores, strict=True):
                if blender is None:
                    inner = (slice(None), *tile.inner)
                    writing.put(tile.write, self._decide(score[inner], keep[tile.inner], are_logits=are_logits))
                    continue
                shares = score.float().softmax(0) if are_logits else score
                blender.add(tile, shares.cpu().numpy(), keep)
        again = work.step in self.journal.done
        if blender is not None and work.ends_step and not again:
            band = blender.finish(work.step)
            if band is not None and band.valid.any():
                made = self._decide(torch.from_numpy(band.probabilities), band.valid, are_logits=False)
                writing.put(band.window, made)
        if work.ends_step and not again:
            writing.done(work.step, pixels=self._step_px[work.step])

    def _scores(self, engine: Engine, chips: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Logits, or with flips probabilities, [chip, class, row, col]; and whether they are logits."""
        if not self.settings.tta:
            return engine(chips), True
        mean = torch.zeros(())
        for axes in _FLIPS:
            flipped = engine(chips.flip(axes) if axes else chips).float().softmax(1)
            mean = mean.to(flipped.device) + (flipped.flip(axes) if axes else flipped) / len(_FLIPS)
        return mean, False

    def _decide(
        self, scores: torch.Tensor, keep: NDArray[np.bool_], *, are_logits: bool
    ) -> dict[str, NDArray[np.uint8]]:
        with torch.inference_mode():
            return classify(
                scores,
                keep,
                index_to_code=self.bundle.scheme.index_to_code,
                products=self.settings.products,
                are_logits=are_logits,
            )


def _rows_of_tiles(tiles: Sequence[Tile]) -> list[list[Tile]]:
    rows: dict[int, list[Tile]] = {}
    for tile in tiles:
        rows.setdefault(tile.write.row, []).append(tile)
    return list(rows.values())
