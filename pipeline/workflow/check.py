"""``landcover check``: the dry run. What can be wrong with a job is looked for before hours are spent on it.

Errors are collected, so that one run of the command tells all of them; nothing of a scene's size is read.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.bands import besides_ground
from pipeline.errors import ModelWarning, OutputError, PipelineError, counted
from pipeline.labels.checks import check_classes, check_overlap, check_pixels, lost_polygons
from pipeline.labels.footprints import check_pixel_size
from pipeline.labels.values import warn_shared
from pipeline.model.describe import read_header
from pipeline.scenes.survey import HIGH, LOW, SceneFacts, decisions, look_at_scene, offset_state
from pipeline.splits.split import Part, Split
from pipeline.splits.usable import judge_usable, refuse_fill, usable_shares
from pipeline.training.settings import learned_polygons
from pipeline.workflow.inputs import open_dates
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import Outcome, Progress, Table, next_run
from pipeline.workflow.stage_chips import chosen_chips
from pipeline.workflow.stages import check_files, settings_checks, warn_of_covariates
from pipeline.workflow.stations import NO_SCENE, fold_table, next_crossval

if TYPE_CHECKING:
    from pipeline.workflow.costs import StageCost

_Found = TypeVar("_Found")
_STEPS = ("scenes", "labels", "split", "estimates")
IDS_SHOWN = 10
# From here on a duration is said in minutes.
SAID_IN_MINUTES_S = 100
# Of the bands of a scene that has more than twice as many.
BANDS_SHOWN = 8


@dataclass
class _Findings:
    """What was found so far; a user's error is kept, and the check goes on with what does not depend on it."""

    failed: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def attempt(self, work: Callable[[], _Found]) -> _Found | None:
        """The result of ``work``, or None and a line among the errors."""
        try:
            return work()
        except PipelineError as err:
            line = " ".join(str(err).split())
            if line not in self.failed:
                self.failed.append(line)
            return None


def check_job(config: Path, *, progress: Progress, changes: Sequence[str] = ()) -> Outcome:
    """Look at everything that a job needs and say what it will take; nothing is written.

    Raises:
        ConfigError: the configuration cannot be read: nothing can be looked at.
    """
    job = Job.load(config, changes=changes, dry=True)
    found = _Findings()
    found.attempt(lambda: check_output(job.folder))
    for number, step in enumerate((_check_scenes, _check_labels, _check_split, _check_cost)):
        progress(f"checking {_STEPS[number]}", 0, 1)
        step(job, found)
        progress(f"checking {_STEPS[number]}", 1, 1)
    errors = len(found.failed)
    return Outcome(
        summary=f"{config}: " + (counted(errors, "error") if errors else f"no error found; {found.data['training']}"),
        tables=tuple(found.tables),
        data=found.data,
        failed=tuple(found.failed),
        hint="" if errors else next_run(config, changes) if job.config.scenes else next_crossval(config, job),
    )


def check_output(folder: Path) -> Path:
    """The nearest folder above ``folder`` that exists.

    Raises:
        OutputError: it is no folder, or must not be written into.
    """
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not above.is_dir():
        raise OutputError("output folder cannot be made", path=folder, got=f"{above} is a file", fix="choose another")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError("output folder cannot be written", path=folder, got="no permission", fix="choose another")
    return above


def _check_scenes(job: Job, found: _Findings) -> None:
    if not job.config.scenes:
        return
    opened = [found.attempt(lambda item=item: open_dates(item, job.config)) for item in job.config.scenes]  # type: ignore[misc]
    sources = found.attempt(lambda: job.sources) if all(scenes is not None for scenes in opened) else None
    if sources is None:
        return
    known = {scene.id: scene.band_names for scenes in opened if scenes is not None for scene in scenes}
    facts = [fact for source in sources if (fact := found.attempt(lambda source=source: look_at_scene(source)))]  # type: ignore[misc]
    found.tables.append(scene_table(facts))
    found.data["scenes"] = []
    for item in facts:
        have = known.get(item.source.id, next(iter(known.values())))
        left = [name for name in have if name not in item.source.band_names and job.config.inputs.time != "stack"]
        found.tables.append(_band_table(item, left=left))
        found.data["scenes"].append(
            {
                "scene": item.source.id,
                "path": item.source.path,
                "crs": item.source.grid.crs.to_string(),
                "shape": list(item.source.grid.shape),
                "pixel_m": list(item.source.grid.pixel_size_m),
                "bands_found": list(have),
                "bands_used": list(item.source.band_names),
                "bands_left": left,
                "invalid_share": item.invalid_share,
                "values": [asdict(band) for band in item.bands],
                "ledger": item.ledger,
            }
        )
    found.tables.append(decisions_table(facts))


def scene_table(facts: Sequence[SceneFacts]) -> Table:
    """Grid and usable share of every scene."""
    rows = tuple(
        (
            item.source.id,
            f"{item.source.grid.height} x {item.source.grid.width}",
            item.source.grid.pixel_text,
            item.source.grid.crs.to_string()[:24],
            f"{len(item.source.band_names)}",
            f"{100 * item.invalid_share:.1f} %",
            offset_state(item),
        )
        for item in facts
    )
    heads = ("scene", "rows x columns", "pixel", "CRS", "bands", "unusable", "offset")
    return Table("scenes", heads, rows)


def _band_table(item: SceneFacts, *, left: Sequence[str]) -> Table:
    """Values of the bands that are used, and the names of those that are not."""
    rows = [
        (
            band.band, "used", band.unit or "-", f"{100 * band.invalid_share:.1f} %",
            *(f"{value:.4g}" for value in (band.smallest, band.low, band.high, band.largest)),
        )
        for band in item.bands
    ]  # fmt: skip
    other = besides_ground((*item.source.band_names, *left), sensor=item.source.sensor)
    unused = [(name, "left: air, heat" if name in other else "left", "", "", "", "", "", "") for name in left]
    heads = ("band", "", "unit", "no data", "min", f"{LOW:g} %", f"{HIGH:g} %", "max")
    shown = [*_spread(rows), *_spread(unused)]
    missing = len(rows) + len(unused) - len(shown)
    least, most = min(band.smallest for band in item.bands), max(band.largest for band in item.bands)
    several = f"{missing} of {len(rows) + len(unused)} bands are not shown (all with --json)"
    notes = (f"{several}; those used hold {least:.4g} to {most:.4g}",) if missing else ()
    return Table(f"values of {item.source.id} (windows looked at)", heads, tuple(shown), notes)


def _spread(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """All rows, or of many BANDS_SHOWN from the first to the last."""
    if len(rows) <= 2 * BANDS_SHOWN:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (BANDS_SHOWN - 1))] for i in range(BANDS_SHOWN)]


def decisions_table(facts: Sequence[SceneFacts]) -> Table:
    """What was decided of each scene, in a line: product, scaling, masks."""
    rows = tuple((item.source.id, *decisions(item)) for item in facts)
    return Table("decisions (all of them with --json)", ("scene", "product", "scaling", "masks"), rows)


def _check_labels(job: Job, found: _Findings) -> None:
    labels = found.attempt(lambda: job.labels)
    if labels is None:
        return
    found.data["labels"] = asdict(labels.report)
    rows = tuple((line.partition(" ")[2], line.partition(" ")[0]) for line in labels.report.lines())
    found.tables.append(Table(f"labels in {labels.path.name}", ("", "features"), rows))
    if not job.config.scenes:
        found.data["training"] = NO_SCENE
        if (folds := found.attempt(lambda: fold_table(job))) is not None:
            found.tables.append(folds)
        return
    if "scenes" not in found.data or found.attempt(lambda: job.sources) is None:
        return
    warn_of_covariates(job)
    overlap = found.attempt(lambda: check_overlap(labels, [source.grid for source in job.sources]))
    found.attempt(lambda: check_pixel_size(labels, [source.grid for source in job.sources], job.object_codes))
    if overlap is None or found.attempt(lambda: job.pixels) is None:
        return
    for pixels in job.pixels:
        check_pixels(labels, pixels)
    if job.is_value:
        warn_shared(labels, job.pixels)
    lost = lost_polygons(labels, job.pixels, overlap)
    found.data["lost"] = lost
    found.tables.append(_lost_table(lost, what="samples" if job.is_value else "polygons"))
    classes = found.attempt(lambda: check_classes(job.pixels, job.scheme))
    if classes is not None:
        found.data["classes"] = {name: {"polygons": a, "pixels": b} for name, (a, b) in classes.items()}
    if len(found.data["scenes"]) == len(job.sources):
        _check_usable(job, found)


def _check_usable(job: Job, found: _Findings) -> None:
    split = found.attempt(lambda: job.split) if "classes" in found.data else None
    usable = found.attempt(lambda: usable_shares(job.sources, job.pixels, job.scheme, split=split))
    if usable is None:
        return
    found.data["usable_share"], found.data["usable_parts"] = usable.classes, usable.parts
    found.attempt(lambda: judge_usable(usable, job.sources))
    found.attempt(lambda: refuse_fill(job.sources, job.pixels))


def _lost_table(lost: dict[str, Any], *, what: str) -> Table:
    rows = [
        (name, str(len(lost[key])), _ids(lost[key]))
        for name, key in (
            ("outside every scene", "outside"), ("without a pixel centre", "too_small"),
            ("every pixel contested", "wholly_contested"),
        )
    ]  # fmt: skip
    rows.append(("cut at a scene's edge", str(lost["across_the_edge"]), ""))
    rows += [
        (f"conflict: {c['classes'][0]} / {c['classes'][1]}", f"{c['pixels']} px", _ids(c["polygons"]))
        for c in lost["conflicts"]
    ]
    more = lost["conflicts_in_all"] - len(lost["conflicts"])
    if more > 0:
        rows.append((f"and {more} more conflicts", "", ""))
    return Table(f"{what} lost", ("", "number", "ids"), tuple(rows))


def _ids(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:IDS_SHOWN])) + (", ..." if len(numbers) > IDS_SHOWN else "")


def _check_split(job: Job, found: _Findings) -> None:
    if "classes" not in found.data:
        return
    for check in (*settings_checks(job), lambda: check_files(job)):
        found.attempt(check)
    split = found.attempt(lambda: job.split)
    if split is None:
        return
    training = job.config.training
    describe = training.describe_values if job.is_value else training.describe
    found.data["training"] = describe(len(learned_polygons(split, training)))
    found.attempt(job.check_leakage)
    index = found.attempt(lambda: chosen_chips(job))
    if index is not None:
        found.data["chips"] = {str(part): int(count) for part, count in index.frame["part"].value_counts().items()}
    counts = split.counts(job.labelled, job.scheme)
    found.data["split"] = {"block_m": split.block_m, "buffer_m": split.buffer_m, "classes": counts}
    parts = [part.name.lower() for part in Part]
    shares, of_part = found.data.get("usable_share", {}), found.data.get("usable_parts", {})
    rows = tuple(
        (
            name,
            *(_polygons(item[part], of_part.get(name, {}).get(part, 1.0)) for part in parts),
            f"{shares[name] * sum(item[part]['pixels'] for part in parts):.0f} px" if name in shares else "-",
        )
        for name, item in counts.items()
    )
    what = "samples" if job.is_value else "polygons"
    found.tables.append(Table(f"{what} per part: {_how(job, split)}", ("class", *parts, "usable, about"), rows))


def _how(job: Job, split: Split) -> str:
    """How polygons, or samples, were kept apart."""
    group = job.config.labels.value.group if job.is_value else None
    if job.split_by_groups:
        return f"groups of {group} kept together, no blocks"
    blocks = f"blocks of {split.block_m:,.0f} m, {split.buffer_m:,.0f} m between parts"
    return f"{blocks}, groups of {group} kept together" if group else blocks


def _polygons(count: dict[str, int], share: float) -> str:
    """Polygons, and their pixels; where some of those looked at have no data, how many have, about.

    >>> _polygons({"polygons": 3, "pixels": 80}, 1.0), _polygons({"polygons": 3, "pixels": 80}, 0.25)
    ('3 (80 px)', '3 (20 of 80 px)')
    """
    usable = f"{share * count['pixels']:.0f} of " if share < 1 else ""
    return f"{count['polygons']} ({usable}{count['pixels']} px)"


def _check_cost(job: Job, found: _Findings) -> None:
    if "split" not in found.data:
        return
    found.attempt(lambda: _check_model(job))
    if found.failed:
        return
    from pipeline.workflow.costs import estimate_stages, job_encoder

    encoder = found.attempt(lambda: job_encoder(job))
    if found.failed:
        return
    if encoder is not None:
        training = job.config.training
        describe = training.describe_values if job.is_value else training.describe
        count = len(learned_polygons(job.split, training))
        found.data["training"] = describe(count, encoder=encoder.describe(), why_not=encoder.why_not)
    if (stages := found.attempt(lambda: estimate_stages(job, encoder))) is not None:
        show_estimates(job, stages, found)


def show_estimates(job: Job, stages: tuple[StageCost, ...], found: _Findings) -> None:
    """What the stages will take, and whether the disk has room for it."""
    disk = sum(item.disk_bytes for item in stages)
    found.attempt(lambda: _check_disk(job, disk))
    seconds, memory = sum(item.seconds for item in stages), max(item.memory_bytes for item in stages)
    limited, unjudged = any(item.limited for item in stages), any(item.unjudged for item in stages)
    rows = [
        (
            item.stage,
            _duration(item.seconds, most=item.limited or item.unjudged),
            _size(item.memory_bytes),
            _size(item.disk_bytes),
        )
        for item in stages
    ]
    rows.append(("all", _duration(seconds, most=limited or unjudged), _size(memory), _size(disk)))
    limit = job.config.training.time_limit_s
    notes: tuple[str, ...] = ()
    if limited:
        notes += (f"training stops at training.time_limit_s, {limit:g} s, with what it has learned",)
    if unjudged:
        notes += ("with the pretrained encoder; less where held-out polygons do not admit it",)
    heads = ("stage", "time", "memory", "disk, at most")
    found.tables.append(Table("what it will take, about, in one process", heads, tuple(rows), notes))
    found.data["estimates"] = [asdict(item) for item in stages]


def _check_disk(job: Job, needed: int) -> None:
    free = shutil.disk_usage(check_output(job.folder)).free
    if needed > free:
        what = f"the job may need {_size(needed)} on the disk"
        raise OutputError(what, path=job.folder, got=f"{_size(free)} free", fix="choose another output folder")


def _check_model(job: Job) -> None:
    """A model of an earlier run: its bands and classes against the job's, by its header alone."""
    if not job.model_path.exists():
        return
    about = read_header(job.model_path)
    bands = tuple(about["preprocess"]["bands"])
    if bands != job.sources[0].band_names:
        what = f"{job.model_path}: the model there was trained on other bands ({', '.join(bands)})"
        warnings.warn(f"{what}; it will be trained again", ModelWarning, stacklevel=2)
    if about["legend_hash"] != job.scheme.hash:
        what = f"{job.model_path}: the model there has another legend; it will be trained again"
        warnings.warn(what, ModelWarning, stacklevel=2)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"  # noqa: PLR2004 - units


def _duration(seconds: float, *, most: bool) -> str:
    text = f"{seconds:.0f} s" if seconds < SAID_IN_MINUTES_S else f"{seconds / 60:.0f} min"
    return f"at most {text}" if most else text
