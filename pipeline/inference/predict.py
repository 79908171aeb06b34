"""Map a scene: read, standardise, run the network, decide, write; side by side, in bounded memory, resumable.

Two threads read and run the network, each on a tile of its own, a third writes behind them and keeps the journal; what
waits between them is a tile or two: nothing of scene size is ever in memory.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelWarning
from pipeline.files import Closing, prepare_folder
from pipeline.inference.areas import read_area
from pipeline.inference.plan import Plan, engine_of, journal_key, make_plan
from pipeline.inference.rows import Journal, Key, RowStore, open_journal
from pipeline.inference.settings import MapSettings
from pipeline.inference.steps import SceneSteps
from pipeline.inference.stream import Writing
from pipeline.legend import NODATA, ClassScheme
from pipeline.maps.look import PANEL_PX, Glimpse
from pipeline.maps.style import PERCENT_NODATA
from pipeline.process import give_back, hold_folder, release_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from pipeline.grid import Grid
    from pipeline.model.bundle import ModelBundle
    from pipeline.raster import Raster
    from pipeline.scenes.scene import Source

    Planner = Callable[[ModelBundle, Source, MapSettings], Plan]

log = logging.getLogger(__name__)
JOURNAL = "journal.jsonl"
LOCK = "lock"


@dataclass(frozen=True)
class Prediction(Closing):
    """A mapped scene, as rows on disk; a context manager that closes them."""

    grid: Grid  # Where the pixels lie
    scheme: ClassScheme  # What the codes mean
    # Stores by name: "codes" and "confidence" always; "probabilities", "entropy", "margin" if asked for. Of a
    # continuous target "codes" (value classes) and "values" (float32: value, lower, upper)
    layers: dict[str, RowStore]
    plan: Plan  # What was decided
    # "mpx" mapped, "seconds" and "mpx_per_s" (of all runs together), "tiles", "tiles_before" (done by an
    # earlier run), JSON-ready
    figures: dict[str, float]
    why_fresh: str = ""  # Why an earlier run in the same folder was not continued; "" where there was none or it was
    lock: BaseFileLock | None = None  # Keeps other runs out of the folder until the stores are closed
    look: Raster | None = None  # Pixels of the scene for its quicklook; None where not all of it was read by this run

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
        plan = {key: value for key, value in self.plan.to_json().items() if key != "threads"}
        return {"LANDCOVER_PREDICTION": plan}

    def close(self) -> None:
        """Close the stores; the files stay, so that the same command finds its work done."""
        for store in self.layers.values():
            store.close()
        if self.lock is not None:
            release_folder(self.lock)

    def remove(self) -> None:
        """Close and delete the stores and the journal: the maps have been written."""
        folder = self.codes.path.parent
        (folder / JOURNAL).unlink(missing_ok=True)
        for store in self.layers.values():
            store.close()
            store.path.unlink(missing_ok=True)
        self.close()


def predict_scene(
    bundle: ModelBundle, source: Source,
    *, out: Path, settings: MapSettings | None = None, progress: Callable[[int, int], None] | None = None,
    key: Key | None = None,
) -> Prediction:  # fmt: skip
    """Map one scene into stores of rows, continuing where an interrupted run of the same kind stopped.

    ``source`` has the bands of the model; others are not read. ``out`` is for the stores and the journal of this scene
    alone; ``progress`` is called with pixels done and pixels in all, from a thread of this run. ``key`` is that of the
    journal, where another machine began it.

    Raises:
        SceneError: the scene lacks a band, or cannot be read (any more); what was mapped is kept.
        OutputError: the folder cannot be written, in use by another run, or the disk is full; the rest is kept.
        ConfigError: the settings cannot be met.
    """
    run = open_run(bundle, source, out=out, settings=settings, key=key)
    try:
        left, glimpse = run.left, Glimpse(source, bundle.bands, max_px=PANEL_PX)
        if left:
            found = run.steps.plan
            engine = engine_of(bundle, found.choice, threads=found.threads, source=run.steps.source)
            give_back()  # what engine and halo were tried on
            with run.writing(progress) as writing:
                run.steps.map(engine, left, writing, glimpse=glimpse)
        return replace(run.finish(), look=glimpse.raster)
    except KeyboardInterrupt:
        run.close()
        log.warning("%s: stopped; the same command continues", source.id)
        raise
    except BaseException:
        run.close()
        raise


def open_run(
    bundle: ModelBundle, source: Source,
    *, out: Path, settings: MapSettings | None = None, planner: Planner = make_plan, key: Key | None = None,
) -> Run:  # fmt: skip
    """The stores and the journal of a scene, new or as an earlier run left them; whoever opens it closes it.

    Arguments as of :func:`predict_scene`; ``planner`` decides what the settings leave open, maybe on another machine.

    Raises:
        SceneError: as there.
        OutputError: as there.
        ConfigError: as there.
    """
    settings = settings or MapSettings.model_validate({})
    source = source.select(bundle.bands)
    area = read_area(source.grid, aoi=settings.aoi, mask=settings.mask)
    prepare_folder(out)
    key = key or journal_key(bundle, source, settings)
    lock = hold_folder(out, name=LOCK)
    try:
        journal, plan = _open(bundle, source, settings, out, planner=planner, key=key)
        stores = _stores(journal, settings, out, shape=source.grid.shape, bundle=bundle)
    except BaseException:
        release_folder(lock)
        raise
    steps = SceneSteps(bundle, source, settings, plan, area)
    before = sum(len(work.tiles) for work in steps.works if work.step in journal.done)
    return Run(steps, key, journal, stores, lock, before)


@dataclass(frozen=True)
class Run:
    """A scene that is being mapped."""

    steps: SceneSteps  # What there is to map
    key: Key  # What the journal is of
    journal: Journal  # What is done
    stores: dict[str, RowStore]  # Where it is kept, by name of the layer
    lock: BaseFileLock  # Keeps other runs out
    before: int  # Tiles that were done when it was opened

    @property
    def left(self) -> list[int]:
        """Steps that are not done."""
        return [step for step in self.steps.pixels if step not in self.journal.done]

    def writing(self, progress: Callable[[int, int], None] | None) -> Writing:
        """The thread that writes steps and notes them; to be used with ``with``."""
        pixels = self.steps.pixels
        done = sum(pixels[step] for step in self.journal.done)
        total = sum(pixels.values())
        return Writing(self.stores, self.journal, done_px=done, total_px=total, progress=progress)

    def finish(self) -> Prediction:
        """The map, once no step is left."""
        if not self.journal.finished:
            self.journal.add([], finished=True)
        works = self.steps.works
        mpx, seconds = sum(work.pixels for work in works) / 1e6, self.journal.seconds
        figures = {
            "mpx": mpx, "seconds": seconds, "mpx_per_s": mpx / seconds if seconds else 0.0,
            "tiles": float(sum(len(work.tiles) for work in works)), "tiles_before": float(self.before),
        }  # fmt: skip
        steps, why = self.steps, self.journal.why_fresh
        return Prediction(
            steps.source.grid, steps.bundle.scheme, self.stores, steps.plan, figures, why_fresh=why, lock=self.lock
        )

    def close(self) -> None:
        """Close the stores and give the folder back; what was mapped stays."""
        for store in self.stores.values():
            store.close()
        release_folder(self.lock)


def _open(
    bundle: ModelBundle, source: Source, settings: MapSettings, out: Path, *, planner: Planner, key: Key
) -> tuple[Journal, Plan]:
    """The journal to continue and its plan, or a new one."""
    journal = open_journal(out / JOURNAL, key)
    whole = all((out / f"{name}.u8").exists() for name in _layers(settings, bundle))
    if journal.resolved and whole:
        return journal, Plan.from_json(journal.resolved)
    why = journal.why_fresh or ("stores of mapped rows are missing" if journal.resolved else "")
    if why:
        log.warning("%s: starting afresh: %s", source.id, why)
    plan = planner(bundle, source, settings)
    if plan.remark:
        warnings.warn(plan.remark, ModelWarning, stacklevel=2)
    # The old journal goes first: a crash before the new one is written leaves stores that nobody trusts.
    (out / JOURNAL).unlink(missing_ok=True)
    # All stores: an earlier run may have had more layers.
    for store in out.glob("*.u8"):
        store.unlink(missing_ok=True)
    journal = Journal(out / JOURNAL, {}, why_fresh=why)
    _stores(journal, settings, out, shape=source.grid.shape, bundle=bundle, close=True)
    journal.begin(key, resolved=plan.to_json())
    return journal, plan


def _layers(settings: MapSettings, bundle: ModelBundle) -> dict[str, tuple[int, str, float]]:
    """Number of bands, type and fill of each layer that is kept, by name."""
    if bundle.quantity is not None:
        return {"codes": (1, "uint8", NODATA), "values": (3, "float32", float("nan"))}
    return {
        name: (len(bundle.scheme) if name == "probabilities" else 1, "uint8",
               NODATA if name == "codes" else PERCENT_NODATA)
        for name in settings.products.layers
    }  # fmt: skip


def _stores(
    journal: Journal, settings: MapSettings, out: Path, *, shape: tuple[int, int], bundle: ModelBundle,
    close: bool = False,
) -> dict[str, RowStore]:  # fmt: skip
    """Stores of all layers, made where there is no journal of them yet."""
    stores = {}
    for name, (layers, dtype, fill) in _layers(settings, bundle).items():
        path = out / f"{name}.u8"
        if not journal.resolved:
            RowStore.create(path, shape=shape, layers=layers, fill=fill, dtype=dtype).close()
        if not close:
            stores[name] = RowStore(path, shape=shape, layers=layers, dtype=dtype)
    return stores
