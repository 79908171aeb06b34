"""``landcover demo``: the main job on the simulated sample data, and the map against the full reference."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.accuracy.assess_estimators import cross_tabulate
from pipeline.diagnostics.scoring import FORESTS, Score, score_of
from pipeline.documents import read_json
from pipeline.errors import InputError
from pipeline.experts.forest import NEIGHBOURHOODS, fit_forest
from pipeline.files import prepare_folder, write_json
from pipeline.legend import IGNORE_INDEX, ClassScheme
from pipeline.maps.pixels import FilePixels, row_bands
from pipeline.scenes.reader import open_reader
from pipeline.workflow.init import write_config
from pipeline.workflow.job import FULL_REFERENCE, Job
from pipeline.workflow.outcome import Outcome, Progress, Table
from pipeline.workflow.stages import run_stages

SAMPLE_DATA = Path("sample_data")
SCENE, LABELS, REFERENCE, LEGEND = "sentinel2.tif", "polygons.gpkg", "reference.tif", "legend.json"
_TREES = 100


def run_demo(output: Path, *, overwrite: bool, progress: Progress, changes: Sequence[str] = ()) -> Outcome:
    """Write a configuration for the sample data, run it, and compare map and forest with the full reference.

    ``changes`` are settings other than the defaults, as ``training.pixels.steps=100``.

    Raises:
        InputError: the sample data is not where the project keeps it.
    """
    data = find_sample_data()
    folder = prepare_folder(output)
    config = folder / "demo.yaml"
    if overwrite or not config.exists():  # a demo that was interrupted goes on with what it wrote
        write_config(
            [str(data / SCENE)], labels=data / LABELS, field="class", layer=None, output=config, overwrite=overwrite
        )
    stages: dict[str, Any] = {"force": False, "overwrite": overwrite, "progress": progress, "changes": changes}
    first = run_stages(config, last="assess", **stages)
    job = Job.load(config, changes=changes)
    progress("full reference", 0, 1)
    scores = against_reference(job, data / REFERENCE, legend=read_legend(data / LEGEND))
    progress("full reference", 1, 1)
    figures = {item.method: {"overall_accuracy": item.overall_accuracy, "macro_f1": item.macro_f1} for item in scores}
    reference = {"what": "all pixels of the simulated truth", "methods": figures}
    write_json(job.folder / FULL_REFERENCE, reference)  # the report shows it beside the test polygons' figures
    outcome = run_stages(config, last="report", **stages)
    path = write_json(folder / FULL_REFERENCE, reference)
    rows = tuple((i.method, f"{100 * i.overall_accuracy:.1f} %", f"{i.macro_f1:.3f}") for i in scores)
    title = "against the full reference (simulated, so every pixel is known)"
    table = Table(title, ("method", "overall accuracy", "macro-F1"), rows)
    # The stages as they were done first, and the one that came after them.
    done, (last, *tables) = first.tables[0], outcome.tables
    return Outcome(
        summary="demo on simulated sample data: done",
        written=(*outcome.written, path),
        hint=outcome.hint,
        tables=(replace(done, rows=(*done.rows, *last.rows[len(done.rows) :])), *tables, table),
        data=outcome.data | {"full_reference": reference},
    )


def find_sample_data() -> Path:
    """The folder of sample data: beside the working directory, beside the package, or where its wheel was installed.

    Raises:
        InputError: it is in none of these.
    """
    installed = Path(sysconfig.get_path("data")) / "share" / "landcover"
    for folder in (Path.cwd(), Path(__file__).resolve().parents[2], installed):
        if (folder / SAMPLE_DATA / SCENE).exists():
            return folder / SAMPLE_DATA
    raise InputError("sample data not found", path=SAMPLE_DATA, fix="run the demo in the project's folder")


def read_legend(path: Path) -> ClassScheme:
    """What the codes of the full reference mean."""
    return ClassScheme.from_json(read_json(path, what="the legend"))


def against_reference(job: Job, reference: Path, *, legend: ClassScheme) -> list[Score]:
    """Figures of map and forest on every pixel that has a reference class and is valid; streamed by row bands.

    The reference's classes are matched to the job's by name.
    """
    index_of = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    for item in legend.classes:
        index_of[item.code] = job.scheme.names.index(item.name)
    source = job.sources[0]
    polygons = np.flatnonzero(job.split.part >= 0).astype(np.int32)
    learned = polygons[job.split.part[polygons] <= 1]
    trees = min(_TREES, job.config.assessment.forest_trees)
    forests = {
        method: fit_forest(job.training_scenes, job.scheme, polygons=learned, sizes=sizes, trees=trees)
        for method, sizes in zip(FORESTS, ((), NEIGHBOURHOODS), strict=True)
    }
    classes = len(job.scheme)
    tables = {method: np.zeros((classes, classes), dtype=np.int64) for method in ("network", *FORESTS)}
    with FilePixels(job.map_of(source.id)) as mapped, FilePixels(reference) as truth, open_reader(source) as reader:
        for window in row_bands(source.grid):
            want = truth.read(window)
            given = {"network": mapped.read(window)}
            given |= {method: forest.predict_window(reader, window) for method, forest in forests.items()}
            for name, codes in given.items():
                index, truth_index = job.scheme.code_to_index[codes], index_of[want]
                both = (index != IGNORE_INDEX) & (truth_index != IGNORE_INDEX)
                tables[name] += cross_tabulate(index[both], truth_index[both], classes=classes)
    return [score_of(name, table, names=job.scheme.names) for name, table in tables.items()]
