"""Whole chips as a job: ``landcover run`` and ``predict --chips``; a folder of rasters per class.

Chips that know their place are split by spatial blocks; folders called train and test (or val) are taken as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator
from sklearn.ensemble import RandomForestClassifier

from pipeline.diagnostics.confidence import calibrate_chips, reliability
from pipeline.diagnostics.scoring import Score, classes_ahead, confusion_csv, score, score_json
from pipeline.documents import read_yaml
from pipeline.errors import LabelError, LabelWarning, OutputError, counted
from pipeline.experts.experts import PixelTable
from pipeline.experts.forest import cores
from pipeline.experts.settings import FOREST_TREES
from pipeline.experts.shares import inner_folds
from pipeline.files import check_target, csv_text, prepare_folder, write_json, write_text
from pipeline.maps.look import shown_bands
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.model.checks import check_value_range
from pipeline.report.data import ChipExample, ReportData
from pipeline.report.page import write_report
from pipeline.runs import environment
from pipeline.scenes.settings import SceneOptions
from pipeline.settings import NAME, Fraction, Settings, absolute, changed, checked
from pipeline.splits.split import block_keys
from pipeline.training.chip_files import (
    FolderChips,
    chips_from_files,
    chips_from_folders,
    raster_files,
)
from pipeline.training.chip_folders import chip_probabilities, fit_chips
from pipeline.training.settings import TrainingSettings
from pipeline.workflow.outcome import Outcome, Progress, Table

# Folders that tell chips to learn from and chips to test, the first that is there.
LEARNED, TESTED = ("train", "training"), ("test", "testing", "val", "valid", "validation")
OPTIONS = "chip_options"
"""Key of the model's provenance: what was known better than the files said."""
# Chips whose values are compared with those that the model learned from.
_CHECKED = 200
# The table of classified chips, in the folder that is asked for.
CHIP_TABLE = "chips.csv"
WHAT = "test chips; not a probability sample of any area"
# Of the report: wrong chips that are shown, and the percentiles between which their bands are stretched.
WRONG_CHIPS, STRETCH_PERCENT = 8, (2, 98)


class ChipFolder(SceneOptions):
    """The chips: a folder per class, or folders train and test (or val) that have them; a raster file per chip."""

    path: str = Field(description="The folder.")
    level: Literal["", "L1C", "L2A", "L2SP"] = Field(
        "", description="Product level, where the files do not say: decides which pretrained weights fit."
    )
    test: Fraction = Field(0.2, description="Share of the chips that is only tested, where the folder has no test.")
    block_m: float = Field(
        20_000.0, gt=0, description="Chips of one block of this side in metres are tested together, or not at all."
    )
    seed: int = Field(0, ge=0, description="Seed of the assignment.")

    _path = field_validator("path")(absolute)


class ChipJob(Settings):
    """A model that gives whole chips a class: everything that ``landcover run`` needs."""

    version: Literal[2] = Field(2, description="Version of this file's schema.")
    name: str = Field("chips", pattern=NAME, description="Name of the job.")
    output: str = Field("chips-run", description="Folder that everything is written into.")
    folder: ChipFolder
    training: TrainingSettings = Field(default_factory=lambda: TrainingSettings(head="chip"))

    _output = field_validator("output")(absolute)

    @field_validator("training")
    @classmethod
    def _head(cls, value: TrainingSettings, info: ValidationInfo) -> TrainingSettings:  # noqa: ARG003 - pydantic's
        if value.head != "chip":
            raise ValueError("head: chip, as whole chips have one class")
        return value

    @property
    def options(self) -> SceneOptions:
        """What is known better than the files say."""
        return SceneOptions.model_validate(self.folder.model_dump(include=set(SceneOptions.model_fields)))


def load_chip_job(config: Path, changes: Sequence[str]) -> ChipJob:
    """A configuration of chips, with the keys that were set for it.

    Raises:
        ConfigError: one that does not fit.
    """
    data = read_yaml(config)
    return checked(ChipJob, changed(data, changes), path=config)


@dataclass(frozen=True)
class Parts:
    """Chips that are learned from and tested, and how they were told apart."""

    learned: FolderChips  # Chips to learn from
    tested: FolderChips | None  # Chips to test; None where there are none
    how: str  # For the record


def run_chips(config: Path, *, overwrite: bool, progress: Progress, changes: Sequence[str] = ()) -> Outcome:
    """Train on folders of chips, test on those set aside: model, figures and a table of the test chips.

    Raises:
        ConfigError: a configuration that does not fit.
        OutputError: the run folder has a model and ``overwrite`` is not given.
        LabelError: no folders of chips, or chips that differ.
    """
    job = load_chip_job(config, changes)
    run = prepare_folder(Path(job.output))
    target = run / "model" / "model.safetensors"
    if target.exists() and not overwrite:
        raise OutputError("the run folder has a model", path=target, fix="add --overwrite, or set another output")
    progress("reading chips", 0, 1)
    parts = parts_of(job)
    progress("reading chips", 1, 1)
    block = _blocks(parts.learned, job.folder.block_m).astype(np.int32)
    result = fit_chips(parts.learned, settings=job.training, folder=target.parent, block=block, progress=progress)
    bundle = calibrate_chips(result.bundle, result.out_of_fold)
    bundle = replace(bundle, provenance={**bundle.provenance, OPTIONS: job.options.model_dump(mode="json")})
    written = [save_bundle(target, bundle)]
    context = bundle.provenance["context"]
    facts: dict[str, object] = {"what": WHAT, "split": parts.how, "learned": len(parts.learned), "context": context}
    tables: tuple[Table, ...] = ()
    summary = f"{job.name}: {counted(len(parts.learned), 'chip')} learned"
    data = ReportData(
        title=job.name, scheme=parts.learned.scheme, chips=True,
        lead=f"Classes of whole chips: {summary.partition(': ')[2]}, {parts.how}. {context['line']}",
        history=tuple(result.history), environment=environment(),
        settings=yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False),
    )  # fmt: skip
    if parts.tested is not None:
        probabilities, scheme = chip_probabilities(bundle, parts.tested), parts.tested.scheme
        judged = _scores(parts, probabilities, trees=FOREST_TREES)
        found = judged[0]
        facts |= {"method": "network", "tested": len(parts.tested), **score_json(found)}
        facts |= {"baselines": {item.method: score_json(item) for item in judged[1:]}}
        written.append(write_text(run / "confusion.csv", confusion_csv(found), what="the confusion matrix"))
        written.append(write_table(run / "test_chips.csv", parts.tested, probabilities, names=scheme.names))
        rows = tuple((item.method, f"{100 * item.overall_accuracy:.1f} %", f"{item.macro_f1:.3f}") for item in judged)
        tables = (Table(WHAT, ("method", "overall accuracy", "macro-F1"), rows),)
        summary += f", {counted(len(parts.tested), 'chip')} tested: {100 * found.overall_accuracy:.1f} % right"
        data = _judged(data, parts.tested, probabilities, judged)
    written += write_report(run / "report.html", data)
    written.append(write_json(run / "accuracy.json", facts))
    return Outcome(
        summary=f"{summary}; {context['line']}",
        written=tuple(written),
        tables=tables,
        data=facts,
        hint=f"classify others with landcover predict --model {target} --chips FOLDER",
    )


def _scores(parts: Parts, probabilities: NDArray[np.float32], *, trees: int) -> tuple[Score, ...]:
    """The network and a random forest of the chips' means and deviations, on the same test chips."""
    learned, tested = parts.learned, cast("FolderChips", parts.tested)
    forest = RandomForestClassifier(trees, n_jobs=cores(), random_state=0).fit(_moments(learned), learned.index)
    codes, said = tested.scheme.index_to_code, (probabilities.argmax(axis=1), forest.predict(_moments(tested)))
    return tuple(
        score(method, codes[index], codes[tested.index], scheme=tested.scheme)
        for method, index in zip(("network", "forest (means and deviations)"), said, strict=True)
    )


def _moments(chips: FolderChips) -> NDArray[np.float32]:
    """Mean and deviation of each band over the valid pixels of each chip, float32 [chip, 2 * band]."""
    weight = chips.valid[:, None]
    count = np.maximum(weight.sum(axis=(2, 3)), 1)
    mean = (chips.values * weight).sum(axis=(2, 3)) / count
    square = ((chips.values - mean[..., None, None]) ** 2 * weight).sum(axis=(2, 3)) / count
    return np.concatenate([mean, np.sqrt(square)], axis=1).astype(np.float32)


def _judged(
    data: ReportData, tested: FolderChips, probabilities: NDArray[np.float32], scores: tuple[Score, ...]
) -> ReportData:
    """The report with what the test chips say."""
    said, sure = probabilities.argmax(axis=1), np.minimum(probabilities.max(axis=1), 1.0)
    wrong = np.flatnonzero(said != tested.index)
    names, (shown, _) = tested.scheme.names, shown_bands(tested.bands, sensor=tested.sensor)
    layers = [tested.bands.index(name) for name in shown]
    low, high = np.percentile(tested.values[:, layers], STRETCH_PERCENT, axis=(0, 2, 3))[..., None, None]
    examples = []
    for number in wrong[np.argsort(-sure[wrong], kind="stable")][:WRONG_CHIPS]:
        picture = np.clip((tested.values[number, layers] - low) / np.maximum(high - low, 1e-6), 0, 1)
        image = np.moveaxis(np.broadcast_to(picture, (3, *picture.shape[1:])), 0, -1).astype(np.float32)
        reference, given = names[tested.index[number]], names[said[number]]
        examples.append(ChipExample(tested.files[number].name, reference, given, float(sure[number]), image))
    return replace(
        data, scores=scores, sampling=f"Figures of {WHAT}.", ahead=classes_ahead(scores), wrong_chips=tuple(examples),
        reliability=reliability(sure, said == tested.index),
    )  # fmt: skip


def parts_of(job: ChipJob) -> Parts:
    """The chips of a job and which of them are tested.

    Raises:
        LabelError: no folders of chips, chips that differ, or test folders of other classes.
    """
    path, given = Path(job.folder.path), {"options": job.options, "level": job.folder.level}
    own, aside = folder_of(path, LEARNED), folder_of(path, TESTED)
    chips = chips_from_folders(own or path, **given)  # type: ignore[arg-type]
    if own is not None and aside is not None:
        tested = chips_from_folders(aside, **given)  # type: ignore[arg-type]
        both = f"folders {own.name} and {aside.name}"
        if chips.scheme != tested.scheme:
            got, expected = ", ".join(tested.scheme.names), ", ".join(chips.scheme.names)
            raise LabelError(f"{both} have other classes", path=path, got=got, expected=expected)
        return Parts(chips, tested, both)
    if not job.folder.test:
        return Parts(chips, None, "none is tested")
    test = set_aside_blocks(chips, share=job.folder.test, block_m=job.folder.block_m, seed=job.folder.seed)
    learned = chips.only(~test)
    if missing := [name for number, name in enumerate(chips.scheme.names) if number not in learned.index]:
        fix = "add chips, or set folder.test to 0"
        raise LabelError("classes without a chip to learn from", path=path, got=", ".join(missing), fix=fix)
    return Parts(learned, chips.only(test), _how(chips, test, block_m=job.folder.block_m))


def folder_of(path: Path, names: Sequence[str]) -> Path | None:
    """The first folder of these names, in any case; None where there is none."""
    known = {item.name.lower(): item for item in path.iterdir() if item.is_dir()} if path.is_dir() else {}
    return next((known[name] for name in names if name in known), None)


def _how(chips: FolderChips, test: NDArray[np.bool_], *, block_m: float) -> str:
    """How chips were told apart; a LabelWarning where chips of one block had to come into both parts."""
    if chips.position_m is None:
        return "chip by chip: they do not know their place"
    block = _blocks(chips, block_m)
    cut = len(np.intersect1d(block[test], block[~test]))
    if not cut:
        return f"blocks of {block_m:g} m"
    said = f"chips of one block in both parts: the figures flatter ({counted(cut, 'block')} of {block_m:g} m)"
    warnings.warn(said, LabelWarning, stacklevel=2)
    return f"blocks of {block_m:g} m; {said}"


def set_aside_blocks(chips: FolderChips, *, share: float, block_m: float, seed: int) -> NDArray[np.bool_]:
    """Which chips are tested, bool [chip]: about ``share``, classes alike, blocks whole."""
    block = _blocks(chips, block_m)
    ids = np.arange(len(chips), dtype=np.int32)
    table = PixelTable(np.zeros((len(chips), 1), dtype=np.float32), chips.index, ids, 1)
    folds = max(round(1 / share), 2)
    return np.asarray(inner_folds(table, group_of=block.astype(np.int32), folds=folds, seed=seed) == 0)


def _blocks(chips: FolderChips, block_m: float) -> NDArray[np.int64]:
    """The number of each chip's block, int64 [chip]; each its own where chips do not know their place."""
    if chips.position_m is None:
        return np.arange(len(chips))
    return np.asarray(np.unique(block_keys(chips.position_m, block_m), return_inverse=True)[1])


def predict_chips(model: Path, folder: Path, *, output: Path | None, overwrite: bool, progress: Progress) -> Outcome:
    """Classify the chips of a folder, and of its subfolders, into a table: file, class, confidence.

    ``output`` is the folder of the table, ``chips.csv``, or the table itself where it ends in ``.csv``; without it, the
    table is called after the folder of the chips.

    Raises:
        ModelError: not a model of chips, or values on another scale than those it learned from.
        LabelError: no raster file, or chips that do not fit the model.
        OutputError: the table exists and ``overwrite`` is not given.
    """
    target = _table_of(folder, output)
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    files = [file for own in folders for file in raster_files(own)]
    check_target(target, overwrite=overwrite, inputs=(model, *files))
    bundle = load_bundle(model)
    progress("reading chips", 0, 1)
    options = SceneOptions.model_validate(bundle.provenance.get(OPTIONS, {}))
    chips = chips_from_files(files, source=folder, options=options)
    progress("reading chips", 1, 1)
    probabilities = chip_probabilities(bundle, chips)
    some = slice(None, None, max(len(chips) // _CHECKED, 1))
    check_value_range(bundle, chips.values[some].transpose(0, 2, 3, 1)[chips.valid[some]], path=str(folder))
    prepare_folder(target.parent)
    write_table(target, chips, probabilities, names=bundle.scheme.names)
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(bundle.scheme))
    rows = tuple((name, str(count)) for name, count in zip(bundle.scheme.names, counts.tolist(), strict=True))
    return Outcome(
        summary=f"{target}: {counted(len(chips), 'chip')} classified",
        written=(target,),
        tables=(Table("chips", ("class", "number"), rows),),
        data={"chips": len(chips), "classes": dict(zip(bundle.scheme.names, counts.tolist(), strict=True))},
    )


def _table_of(folder: Path, output: Path | None) -> Path:
    """Where the table of a folder of chips is written.

    Raises:
        OutputError: a file stands where the folder should be.
    """
    if output is None:
        return Path(f"{folder.resolve().name}_classes.csv")
    if output.suffix.lower() == ".csv" and not output.is_dir():
        return output
    if output.exists() and not output.is_dir():
        fix = "name a folder, or a file that ends in .csv"
        raise OutputError("not a folder for the table of chips", path=output, got="a file", fix=fix)
    return output / CHIP_TABLE


def write_table(path: Path, chips: FolderChips, probabilities: NDArray[np.float32], *, names: tuple[str, ...]) -> Path:
    """Write a row per chip: file, class, confidence 0..1, and the class of its folder where it is known."""
    known = bool((chips.index < len(chips.scheme)).all())
    rows = [["file", "class", "confidence", *(["reference"] if known else [])]]
    best = probabilities.argmax(axis=1)
    for number, file in enumerate(chips.files):
        own = file.relative_to(chips.source) if file.is_relative_to(chips.source) else file
        reference = [chips.scheme.names[chips.index[number]]] if known else []
        rows.append([own.as_posix(), names[best[number]], f"{probabilities[number].max():.4f}", *reference])
    return write_text(path, csv_text(rows), what="the table of chips")
