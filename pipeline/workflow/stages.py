"""``landcover run`` and its stages: chips, train, predict, assess, report; each only when its inputs have changed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.errors import OutputError
from pipeline.files import write_json
from pipeline.runs import RESOLVED, RunFolder, environment
from pipeline.workflow.job import Job
from pipeline.workflow.mapping import MapRequest
from pipeline.workflow.outcome import STAGE, Outcome, Progress, Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STAGES = ("chips", "train", "predict", "assess", "report")


@dataclass(frozen=True)
class StageRun:
    """What a stage is given.

    Attributes:
        job: The job, with the command line's wishes in its configuration.
        folder: The run folder.
        overwrite: Replace products of an earlier run.
        resume: Training goes on from its last checkpoint.
        seam_figure: Measure disagreement along tile borders.
        progress: For the terminal.
        facts: Figures of the stage for ``run.json``; the stage fills it in.
    """

    job: Job
    folder: Path
    overwrite: bool
    resume: bool
    seam_figure: bool
    progress: Progress
    facts: dict[str, float] = field(default_factory=dict)


def run_stages(
    config: Path,
    *,
    last: str,
    force: bool,
    overwrite: bool,
    progress: Progress,
    resume: bool = False,
    request: MapRequest | None = None,
) -> Outcome:
    """All stages up to ``last``; those whose inputs have not changed are not done again.

    Args:
        config: The configuration file.
        last: One of STAGES.
        force: Do ``last`` (for "report": everything) again.
        overwrite: Replace what an earlier run with other settings wrote.
        progress: For the terminal.
        resume: Training goes on from its last checkpoint.
        request: What the command line asks of mapping.

    Raises:
        OutputError: products of other settings are in the way and ``overwrite`` is not given.
    """
    job = Job.load(config)
    request = request or MapRequest()
    job = replace(job, config=job.config.model_copy(update={"map": request.apply(job.config.map)}))
    run = job.open_folder()
    given = StageRun(job, run.path, overwrite, resume, request.seam_figure, progress)
    done = [
        _do(run, name, given, force=force and last in {name, "report"}) for name in STAGES[: STAGES.index(last) + 1]
    ]
    if config.resolve() != (run.path / RESOLVED).resolve():
        run.write_resolved(job.config.model_dump(mode="json"))
    run.note(environment=environment(), config=config.name, inputs=job.input_files, seeds=job.seeds)
    return _join(run, last, done)


def _do(run: RunFolder, name: str, given: StageRun, *, force: bool) -> tuple[str, bool]:
    """Do a stage if it is not current; gives its name and whether it was done."""
    key = given.job.stage_key(name)
    if run.is_current(name, key=key) and not force:
        return name, False
    earlier = run.record()["stages"].get(name)
    # Only training goes on from what is there, and only with the same job: all else would be replaced unasked.
    resume_key = given.job.resume_key if name == "train" else None
    goes_on = given.resume and resume_key is not None and (earlier or {}).get("resume_key") == resume_key
    if earlier and not given.overwrite and not goes_on:
        there = [run.path / output for output in earlier["outputs"] if (run.path / output).exists()]
        if there:
            why = "is to be done again" if force else "has other settings or inputs now"
            raise OutputError(
                f"stage {name} {why}, and what it wrote before is there",
                path=there[0],
                fix="add --overwrite, or set another output folder in the configuration",
            )
    given.facts.clear()
    given.progress(f"{STAGE}{name}", 0, 1)
    with run.stage(name, key=key, facts=given.facts, resume_key=resume_key) as outputs:
        outputs.extend(_work(name)(given))
    given.progress(f"{STAGE}{name}", 1, 1)
    return name, True


def _work(name: str) -> Callable[[StageRun], list[Path]]:
    """The function of a stage, from a module of its own: training and mapping bring torch, the others do not."""
    work: Callable[[StageRun], list[Path]] = import_module(f"pipeline.workflow.stage_{name}").perform
    return work


def _join(run: RunFolder, last: str, done: list[tuple[str, bool]]) -> Outcome:
    """One summary of all stages."""
    record = run.record()
    tables = [
        Table(
            "stages",
            ("stage", "", "seconds"),
            tuple(
                (name, "done" if fresh else "unchanged", f"{record['stages'][name]['seconds']:.1f}")
                for name, fresh in done
            ),
        )
    ]
    data: dict[str, Any] = {"stages": record["stages"]}
    accuracy = run.path / "accuracy.json"
    if last in {"assess", "report"} and accuracy.exists():
        data["accuracy"] = json.loads(accuracy.read_text(encoding="utf-8"))
        tables.append(_accuracy_table(data["accuracy"]))
    areas = run.path / "areas.json"
    if last in {"predict", "report"} and areas.exists():
        data["areas"] = json.loads(areas.read_text(encoding="utf-8"))
        tables.append(_area_table(data["areas"]))
    written = tuple(run.path / output for output in _foremost(record["stages"], last))
    project = next((path for path in written if path.suffix == ".qgz"), None)
    return Outcome(
        summary=f"{run.path.name}: {last} done",
        written=written,
        hint=f"open {project} in QGIS by double click; the report is {run.path / 'report.html'}" if project else "",
        tables=tuple(tables),
        data=data,
    )


def _foremost(stages: dict[str, Any], last: str) -> list[str]:
    """What the last stage wrote; the maps go first at the end of a whole run, as they are what it was for."""
    written: list[str] = stages[last]["outputs"]
    maps = [name for name in stages["predict"]["outputs"] if name.endswith("_lc.tif")] if last == "report" else []
    return [*maps, *written]


def _accuracy_table(accuracy: dict[str, Any]) -> Table:
    rows = tuple(
        (item["method"], f"{100 * item['overall_accuracy']:.1f} %", f"{item['macro_f1']:.3f}")
        for item in (accuracy, accuracy["baseline"])
    )
    without = accuracy.get("macro_f1_without")
    title = "on the test polygons (not a probability sample)"
    title += f"; no usable test pixel, so not in the mean: {', '.join(without)}" if without else ""
    return Table(title, ("method", "overall accuracy", "mean F1"), rows)


def _area_table(areas: dict[str, Any]) -> Table:
    rows = tuple((item["name"], f"{item['area_ha']:,.1f}", f"{100 * item['share']:.1f} %") for item in areas["classes"])
    return Table("mapped area", ("class", "ha", "share"), rows)


def write_areas(path: Path, counts: list[tuple[str, Any]]) -> Path:
    """``areas.json``: mapped area per class over all scenes, and per scene."""
    names = counts[0][1].scheme.names
    totals = [sum(item.area_ha[i] for _, item in counts) for i in range(len(names))]
    whole = sum(totals) or 1.0
    return write_json(
        path,
        {
            "unit": "ha",
            "what": "mapped area, counted from pixels; not an area estimate",
            "classes": [
                {"name": name, "area_ha": round(area, 4), "share": area / whole}
                for name, area in zip(names, totals, strict=True)
            ],
            "scenes": {scene: dict(zip(names, item.area_ha, strict=True)) for scene, item in counts},
        },
    )
