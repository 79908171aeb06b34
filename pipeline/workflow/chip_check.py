"""Whole chips before they are learned: the configuration of ``landcover init --chips``, and the dry run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import counted
from pipeline.files import check_target, write_text
from pipeline.legend import scheme_for
from pipeline.scenes.settings import AS_FOUND, SceneOptions
from pipeline.settings import Off, checked, commented_yaml
from pipeline.training.chip_files import class_folders, open_chips
from pipeline.training.chip_folders import scaling_of
from pipeline.training.encoder_features import frozen_features
from pipeline.training.networks import build_networks
from pipeline.workflow.chip_job import LEARNED, ChipJob, Parts, folder_of, load_chip_job, parts_of
from pipeline.workflow.init import WHERE_TAGS_ARE_MISSING, hints_of
from pipeline.workflow.outcome import Outcome, Progress, Table, next_run

# Keys that files of chips often lack, as comments: an example of each.
_SHOWN = {"bands": Off(["blue", "green", "red", "nir"]), "sensor": Off("sentinel-2"), **WHERE_TAGS_ARE_MISSING}


def write_chip_config(folder: Path, *, output: Path, overwrite: bool, options: SceneOptions = AS_FOUND) -> Outcome:
    """Look at a folder of chips and write a configuration that runs as it is.

    Raises:
        OutputError: ``output`` exists.
        LabelError: no folders of chips, or the first and last chips of the classes differ in size or bands.
        ConfigError: a sensor that is not known.
    """
    found = class_folders(folder_of(folder, LEARNED) or folder)
    check_target(output, overwrite=overwrite, inputs=chain.from_iterable(found.values()))
    scheme_for(list(found))  # names that make no legend are said now
    opened = open_chips([file for files in found.values() for file in {files[0]: 0, files[-1]: 0}], options=options)
    stem = output.stem if output.stem != "config" else "chips"
    given: dict[str, Any] = {
        "path": str(folder.resolve()), "level": "", "test": 0.2, "block_m": 20_000.0,
        **options.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
    }  # fmt: skip
    plain = {"version": 2, "name": stem, "output": f"{stem}-run", "folder": given, "training": {"head": "chip"}}
    checked(ChipJob, plain, path=output)
    head = ("Configuration of a chip classifier, written by landcover init --chips. It runs as it is:",
            f"  landcover check {output.name}", f"  landcover run {output.name}")  # fmt: skip
    shown = plain | {"folder": _SHOWN | given}
    write_text(output, commented_yaml(shown, head=head, model=ChipJob), what="the configuration")
    rows = tuple((name, str(len(files))) for name, files in found.items())
    return Outcome(
        summary=f"{output}: {counted(sum(map(len, found.values())), 'chip')} of {len(found)} classes",
        written=(output,),
        tables=(Table("chips", ("class", "files"), rows, hints_of(opened[:1])),),
        hint=f"next: landcover check {shlex.quote(str(output))}, then landcover run {shlex.quote(str(output))}",
    )


def check_chips(config: Path, *, progress: Progress, changes: Sequence[str] = ()) -> Outcome:
    """Read all chips and divide them, as ``run`` will, and say what will be trained; nothing is written.

    Raises:
        ConfigError: a configuration that does not fit.
        LabelError: no folders of chips, chips that differ, or classes without a chip to learn from.
        ModelError: pretrained weights that do not fit, or nothing to train.
    """
    job = load_chip_job(config, changes)
    progress("reading chips", 0, 1)
    parts = parts_of(job)
    progress("reading chips", 1, 1)
    training = _what_is_trained(job, parts)
    notes = hints_of(open_chips(parts.learned.files[:1], options=job.options), keys="folder.")
    learned, tested = len(parts.learned), 0 if parts.tested is None else len(parts.tested)
    return Outcome(
        summary=f"{config}: no error found; {counted(learned, 'chip')} to learn from, {tested} to test, {parts.how}; "
        f"{training}",
        tables=(_parts_table(parts, notes),),
        hint=next_run(config, changes),
        data={"learned": learned, "tested": tested, "split": parts.how, "training": training, "notes": list(notes)},
    )


def _what_is_trained(job: ChipJob, parts: Parts) -> str:
    """What will be trained, in one line, with the pretrained encoder that the chips get or why none fits."""
    chips, settings = parts.learned, job.training
    preprocess = scaling_of(chips)[1]
    frozen, why = frozen_features(settings, preprocess, sensor=chips.sensor, level=chips.level, units=chips.units)
    if frozen is None:  # what cannot be built is said now; an encoder that was found can
        classes, side = len(chips.scheme), chips.chip_px
        build_networks(settings, classes=classes, chip_px=side, preprocess=preprocess, units=chips.units)
    encoder = frozen.describe() if frozen is not None else ""
    return settings.describe(len(chips), what="chips", encoder=encoder, why_not=why)


def _parts_table(parts: Parts, notes: tuple[str, ...]) -> Table:
    """Chips of each class that are learned and tested."""
    names = parts.learned.scheme.names
    counts = [
        np.bincount(part.index, minlength=len(names)) if part is not None else np.zeros(len(names), dtype=np.int64)
        for part in (parts.learned, parts.tested)
    ]
    rows = tuple((name, str(own), str(held)) for name, own, held in zip(names, *counts, strict=True))
    return Table(f"chips per part: {parts.how}", ("class", "learned", "tested"), rows, notes)
