"""``landcover run`` and its stages: chips, train, predict, assess, report; each only when its inputs have changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.diagnostics.failures import BLOCKS, SURELY_WRONG
from pipeline.diagnostics.scoring import CERTAIN_POLYGONS, FEW_POLYGONS
from pipeline.documents import read_json
from pipeline.errors import ConfigError, GridError, LabelWarning, OutputError
from pipeline.files import check_target
from pipeline.model.describe import read_header
from pipeline.runs import LABELS, RESOLVED, RunFolder, environment
from pipeline.scenes.ledger import LEDGER_FILE
from pipeline.workflow.job import ACCURACY, AREAS, CONFUSION, FEATURES, HISTORY, SAMPLES, STAGES, Job, StageRun
from pipeline.workflow.objects import HEADS, accuracy_rows
from pipeline.workflow.outcome import STAGE, Outcome, Progress, Table


def run_stages(
    config: Path,
    *, last: str, force: bool, overwrite: bool, progress: Progress, resume: bool = False, verify: bool = False,
    changes: Sequence[str] = (),
) -> Outcome:  # fmt: skip
    """All stages up to ``last``; those whose inputs and products have not changed are not done again.

    Args:
        config: The configuration file.
        last: One of STAGES.
        force: Do ``last`` (for "report": everything) again.
        overwrite: Replace what an earlier run with other settings wrote, and files that are not this run's.
        progress: For the terminal.
        resume: Training goes on from its last checkpoint.
        verify: Compare the content of every product with what was recorded, not its size and time of change alone.
        changes: Settings other than the file's, as ``map.memory=1GB``.

    Raises:
        ConfigError: samples without a scene.
        OutputError: another run holds the folder, or files are in the way and ``overwrite`` is not given.
    """
    job = Job.load(config, changes=changes)
    job.require_scenes()
    warn_of_covariates(job)
    run = job.open_folder()
    given = StageRun(job, resume, progress)
    with run.lock():
        own = job.path.resolve() == (run.path / RESOLVED).resolve()
        check_target(run.path / RESOLVED, overwrite=own or overwrite or "settings" in run.record())
        done = [
            (name, _do(run, name, given, force=force and last in {name, "report"}, overwrite=overwrite, verify=verify))
            for name in STAGES[: STAGES.index(last) + 1]
        ]
        run.note(environment=environment(), config=config.name, inputs=job.input_files, seeds=job.seeds)
        if not own:
            run.note(settings=RESOLVED)
            run.write_resolved(job.config.model_dump(mode="json"))
        return _join(run, job, last, done)


def _do(run: RunFolder, name: str, given: StageRun, *, force: bool, overwrite: bool, verify: bool) -> bool:
    """Do a stage if it is not current; gives whether it was done."""
    key = given.job.stage_key(name)
    if not force and run.is_current(name, key=key, verify=verify):
        return False
    resume_key = given.job.resume_key if name == "train" else None
    if name == "train":  # what a later stage would refuse is refused before hours are spent on training
        for check in settings_checks(given.job):
            check()
    if not overwrite:
        _check_products(run, name, given, key=key, force=force, resume_key=resume_key)
    given.facts.clear()
    given.progress(f"{STAGE}{name}", 0, 1)
    with run.stage(name, key=key, facts=given.facts, resume_key=resume_key) as outputs:
        outputs.extend(_work_of(name, is_value=given.job.is_value)(given))
    given.progress(f"{STAGE}{name}", 1, 1)
    return True


def _check_products(
    run: RunFolder, name: str, given: StageRun, *, key: str, force: bool, resume_key: str | None
) -> None:
    """Refuse to replace files, unless this stage wrote them and did not end, or would write the same again.

    Raises:
        OutputError: a product of other settings, one that was changed since, or a file that is not this run's.
    """
    earlier = run.record()["stages"].get(name)
    if earlier is None:
        _check_strange(run, name, given.job)
        return
    # Only training goes on from what is there, and only with the same job: all else would be replaced unasked.
    if given.resume and resume_key is not None and earlier.get("resume_key") == resume_key:
        return
    if not force and earlier["key"] == key:
        why = "is to be done again, as this file is not what it wrote"
        there = [path for path in run.changed(name) if path.exists() and path.stat().st_size]
    else:
        why = "is to be done again" if force else "has other settings or inputs now"
        why += ", and what it wrote before is there"
        there = [path for output in earlier["outputs"] if (path := run.path / output).exists()]
    if there:
        fix = "add --overwrite, or set another output folder in the configuration"
        raise OutputError(f"stage {name} {why}", path=there[0], fix=fix)


def warn_of_covariates(job: Job) -> None:
    """LabelWarning where attributes are named that no raster has: a map is made without them."""
    if job.is_value and (named := job.config.labels.value.covariates):
        text = f"labels.value.covariates ({', '.join(named)}): used by crossval alone, as no raster has them"
        warnings.warn(f"{job.config.labels.path}: {text}; the map is made without them", LabelWarning, stacklevel=3)


def check_files(job: Job) -> None:
    """Refuse files of others that have the names of what a job would write.

    Raises:
        OutputError: a file that is not this run's, or a damaged record of the run.
    """
    run = RunFolder(job.folder)
    for name in STAGES:
        if name not in run.record()["stages"]:
            _check_strange(run, name, job)


def _check_strange(run: RunFolder, name: str, job: Job) -> None:
    """Refuse files with the names of a stage's products, unless the stage was begun: then they are its own."""
    if name not in run.record()["begun"]:
        for path in _products(job, name):
            check_target(path, overwrite=False)


def _work_of(name: str, *, is_value: bool) -> Callable[[StageRun], list[Path]]:
    """What a stage does; imported when needed, as training and mapping bring torch."""
    if name == "chips":
        from pipeline.workflow.stage_chips import chips

        return chips
    if is_value and name != "predict":
        from pipeline.workflow import value_stages

        return {"train": value_stages.train, "assess": value_stages.assess, "report": value_stages.report}[name]
    if name == "report":
        from pipeline.workflow.stage_report import report

        return report
    from pipeline.workflow import class_stages

    return {"train": class_stages.train, "predict": class_stages.predict, "assess": class_stages.assess}[name]


def _products(job: Job, name: str) -> list[Path]:
    """The files that a stage makes; sidecars, figures and items aside."""
    if name == "predict":
        from pipeline.workflow.class_stages import predict_products

        return predict_products(job)
    features = (FEATURES,) if job.config.assessment.features and not job.is_value else ()
    files = {
        "chips": ("chips/index.parquet", "chips/chips.gpkg", LABELS, "chips/split.json", LEDGER_FILE),
        "train": ("model/model.safetensors", HISTORY),
        "assess": (ACCURACY, *((SAMPLES,) if job.is_value else (CONFUSION, BLOCKS, SURELY_WRONG))),
        "report": (f"{job.config.name}.qgz", "report.html", "collection.json", *features),
    }
    return [job.folder / file for file in files[name]]


def _join(run: RunFolder, job: Job, last: str, done: list[tuple[str, bool]]) -> Outcome:
    """One summary of all stages."""
    record = run.record()
    rows = tuple(
        (name, "done" if fresh else "unchanged", f"{record['stages'][name].get('seconds', 0.0):.1f}")
        for name, fresh in done
    )
    tables = [Table("stages", ("stage", "", "seconds"), rows)]
    data: dict[str, Any] = {"stages": record["stages"]}
    accuracy = run.path / ACCURACY
    if last in {"assess", "report"} and accuracy.exists():
        data["accuracy"] = read_json(accuracy)
        tables.append((_value_table if job.is_value else _accuracy_table)(data["accuracy"]))
        if objects := data["accuracy"].get("objects"):
            tables.append(Table("objects on the test blocks, at IoU 0.5", HEADS, accuracy_rows(objects)))
    areas = run.path / AREAS
    if last in {"predict", "report"} and areas.exists():
        data["areas"] = read_json(areas)
        tables.append(_area_table(data["areas"]))
    if last != "chips" and job.model_path.exists():
        data["learned"] = read_header(job.model_path)["provenance"].get("context", {})
        if line := data["learned"].get("line"):
            tables.append(Table("encoder", ("",), ((line,),)))
    named = set(_products(job, last))
    written = tuple(path for output in record["stages"][last]["outputs"] if (path := run.path / output) in named)
    if last == "report":  # the map is what the run was for
        kind = "value" if job.is_value else "lc"
        written = (*(job.map_of(source.id, kind) for source in job.mapped), *written)
    project = next((path for path in written if path.suffix == ".qgz"), None)
    return Outcome(
        summary=f"{run.path.name}: {last} done",
        written=written,
        hint=f"open {project} in QGIS by double click; the report is {run.path / 'report.html'}" if project else "",
        tables=tuple(tables),
        data=data,
    )


def _accuracy_table(accuracy: dict[str, Any]) -> Table:
    """Network and forests on the test polygons, and below it what the figures cannot say."""
    polygons = str(accuracy["test_polygons"])
    rows = tuple(
        (item["method"], f"{100 * item['overall_accuracy']:.1f} %", f"{item['macro_f1']:.3f}", polygons)
        for item in (accuracy, *accuracy["baselines"])
    )
    per_class = accuracy["per_class"]
    without = accuracy.get("macro_f1_without")
    few = [f"{name} ({item['polygons']})" for name, item in per_class.items() if item.get("too_few")]
    sure = [
        f"{name} ({item['polygons']})"
        for name, item in per_class.items()
        if 1.0 in (item["users_accuracy"], item["producers_accuracy"])
        and FEW_POLYGONS <= item["polygons"] < CERTAIN_POLYGONS
    ]
    notes = {
        "no usable test pixel, so not in the mean": without,
        "too few test polygons to judge": few,
        "100 % of few test polygons, landcover crossval tells more": sure,
    }
    heads = ("method", "overall accuracy", "macro-F1", "test polygons")
    said = tuple(f"{text}: {', '.join(names)}" for text, names in notes.items() if names)
    return Table("on the test polygons (not a probability sample)", heads, rows, (*_ahead(accuracy), *said))


def _value_table(accuracy: dict[str, Any]) -> Table:
    """Network and baselines on the held-out samples of a continuous target."""
    rows = tuple(
        (item["method"], *(f"{item[name]:.3g}" if item[name] is not None else "-" for name in
                           ("r2", "rmse", "mae", "bias", "coverage", "width")))
        for item in (accuracy, *accuracy["baselines"])
    )  # fmt: skip
    heads = ("method", "R2", "RMSE", "MAE", "bias", "coverage of 90 %", "width")
    return Table(f"on {accuracy['samples']} held-out samples (not a probability sample)", heads, rows,
                 _ahead(accuracy))  # fmt: skip


def _ahead(accuracy: dict[str, Any]) -> tuple[str, ...]:
    """Which other method is ahead of the network, where one is."""
    return tuple(filter(None, [accuracy.get("ahead", "")]))


def _area_table(areas: dict[str, Any]) -> Table:
    rows = tuple((item["name"], f"{item['area_ha']:,.1f}", f"{100 * item['share']:.1f} %") for item in areas["classes"])
    share = areas.get("mapped_share")
    covered = f"; the rest of the scenes, {1 - share:.1%}, has no data" if share is not None and share < 1 else ""
    return Table(f"mapped area{covered}", ("class", "ha", "share of the map"), rows)


def settings_checks(job: Job) -> tuple[Callable[[], None], ...]:
    """Checks of a job whose scenes can be opened; each raises a PipelineError where a later stage would."""
    return tuple(
        lambda check=check: check(job)
        for check in (_check_weights, _check_areas, _check_class_units, _check_mosaic, _check_packages, _check_sets)
    )


def _check_weights(job: Job) -> None:
    """The encoder's weights: read as training does, which downloads nothing."""
    from pipeline.model.preprocess import Preprocess
    from pipeline.model.pretrained import SceneBands, search_encoders
    from pipeline.training.networks import build_networks
    from pipeline.training.settings import AUTO, NO_WEIGHTS

    context = job.config.training.context
    if not context.enabled or context.weights in {NO_WEIGHTS, AUTO}:
        return
    source = job.sources[0]
    if context.frozen_first:
        # Values are looked at by check, and by training where they lie under the labels.
        asked = SceneBands(source.band_names, source.sensor, source.level, source.units)
        search_encoders(asked, weights=context.weights)
        return
    size = len(source.band_names)
    build_networks(
        job.config.training, classes=len(job.scheme), chip_px=job.config.chips.size_px,
        preprocess=Preprocess(source.band_names, (0.0,) * size, (1.0,) * size), units=source.units,
    )  # fmt: skip


def _check_areas(job: Job) -> None:
    """Area of interest and mask: polygons that meet every scene."""
    from pipeline.inference.areas import read_area

    for source in job.sources:
        read_area(source.grid, aoi=job.config.map.aoi, mask=job.config.map.mask)


def _check_class_units(job: Job) -> None:
    """Minimum mapping units of classes that there are."""
    from pipeline.maps.vectorise import minimum_pixels

    section = job.config.map
    if section.polygons:
        for source in job.sources:
            minimum_pixels(source.grid, job.scheme, mmu_ha=section.mmu_ha, class_mmu_ha=section.class_mmu_ha)


def _check_mosaic(job: Job) -> None:
    """A mosaic needs one CRS, or the choice of one, and dates where the newest wins."""
    section, sources = job.config.map, job.sources
    if section.mosaic is None or len(sources) == 1:
        return
    found = sorted({str(source.grid.crs) for source in sources})
    if section.mosaic_crs is None and len(found) > 1:
        raise GridError(
            "maps have several CRSs", got=", ".join(found), fix="choose the CRS of the mosaic, such as EPSG:3035"
        )
    undated = [source.id for source in sources if source.acquired_utc is None]
    if section.mosaic == "latest" and undated:
        raise ConfigError("map of a scene without date", got=undated[0], fix="use the rule confidence or first")


def _check_sets(job: Job) -> None:
    """Class sets need blocks that can be held out."""
    level = job.config.map.sets
    if level is None:
        return
    import numpy as np

    from pipeline.diagnostics.class_sets import least_blocks, too_few_blocks
    from pipeline.diagnostics.confidence import blocks_of_pixels
    from pipeline.splits.split import Part

    split, learned = job.split, job.config.training.learned_parts
    held = np.flatnonzero(np.isin(split.part, learned if Part.VALIDATION in learned else [Part.VALIDATION]))
    blocks = len(np.unique(blocks_of_pixels(held.astype(np.int32), split.block_of)))
    if blocks < least_blocks(level):
        raise too_few_blocks(level, blocks)


def _check_packages(job: Job) -> None:
    if job.config.map.segments_px:
        from pipeline.maps.segments import need_segments

        need_segments()
    if job.config.assessment.umap and job.config.assessment.features and find_spec("umap") is None:
        raise ConfigError("UMAP needs the package umap-learn", fix="pip install landcover-pipeline[umap]")
