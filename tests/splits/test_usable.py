"""Labels on ground that cannot be used are told by class before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.errors import LabelWarning, SceneError, SceneWarning
from pipeline.scenes.opening import open_scene
from pipeline.splits.split import Part
from pipeline.splits.usable import CLASS_SAMPLE, LABELLED_SAMPLE, check_labelled, usable_shares
from pipeline.workflow.check import check_job
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import no_progress
from tests.fakes.small_world import CLASSES, reflectance, truth, write_scene, write_world

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def masked(folder: Path, without: NDArray[np.bool_]) -> Path:
    """A small world whose scene has no data at some pixels; its configuration."""
    config = write_world(folder)
    values = reflectance()
    values[:, without] = np.nan
    write_scene(folder / "scene.tif", values)
    return config


def test_one_class_with_data_is_an_error_that_shows_the_counts(tmp_path: Path) -> None:
    with pytest.warns(SceneWarning, match="pixels looked at have no data"):
        outcome = check_job(masked(tmp_path, truth() > 0), progress=no_progress)
    (failed,) = outcome.failed
    expected = f"got {CLASSES[0]}; expected at least two of {', '.join(CLASSES)}"
    assert failed.startswith(f"fewer than two classes have usable pixels; {expected}; check nodata and masks")
    (split,) = [table for table in outcome.tables if table.title.startswith("polygons per part")]
    total = outcome.data["classes"][CLASSES[0]]["pixels"]
    assert [(row[0], row[-1]) for row in split.rows] == [
        (CLASSES[0], f"{total} px"), (CLASSES[1], "0 px"), (CLASSES[2], "0 px"),
    ]  # fmt: skip


def test_a_class_without_data_is_warned_about_by_name(tmp_path: Path) -> None:
    job = Job.load(masked(tmp_path, truth() == 1))
    with pytest.warns(LabelWarning, match=f"every labelled pixel of class {CLASSES[1]} has no data or is masked"):
        check_labelled(job.sources, job.pixels, job.scheme)


def test_nothing_anywhere_is_an_error_of_the_scene(tmp_path: Path) -> None:
    job = Job.load(masked(tmp_path, np.ones((96, 96), dtype=np.bool_)))
    with pytest.raises(SceneError, match="no labelled pixel has data"):
        check_labelled(job.sources, job.pixels, job.scheme)


def test_one_pixel_with_data_among_many_is_found(tmp_path: Path) -> None:
    job = Job.load(write_world(tmp_path))
    (pixels,) = job.pixels
    own = np.flatnonzero(pixels.code == 2)
    values = reflectance()
    values[:, truth() == 1] = np.nan
    spread = np.linspace(0, len(pixels) - 1, LABELLED_SAMPLE), np.linspace(0, len(own) - 1, CLASS_SAMPLE)
    first = spread[0].astype(int), own[spread[1].astype(int)]
    for lucky in np.setdiff1d(own, np.concatenate(first))[:2]:
        values[:, pixels.row[lucky], pixels.col[lucky]] = 0.1
    scene = open_scene(write_scene(tmp_path / "scene.tif", values))
    found = usable_shares([scene], [pixels], job.scheme)
    assert found.classes == {CLASSES[0]: 1.0, CLASSES[1]: 2 / len(own), CLASSES[2]: 1.0}
    assert 0.5 < found.scenes["scene"] < 0.8


def test_check_counts_usable_pixels_per_class_and_part(tmp_path: Path) -> None:
    job = Job.load(write_world(tmp_path))
    (pixels,) = job.pixels
    gone = (pixels.code == 2) & (job.split.part[pixels.polygon] == Part.TEST)
    without = np.zeros((96, 96), dtype=np.bool_)
    without[pixels.row[gone], pixels.col[gone]] = True
    outcome = check_job(masked(tmp_path, without), progress=no_progress)
    assert not outcome.failed
    assert outcome.data["usable_parts"][CLASSES[1]] == {"train": 1.0, "validation": 1.0, "test": 0.0}
    (split,) = [table for table in outcome.tables if table.title.startswith("polygons per part")]
    row = dict(zip(split.heads, split.rows[1], strict=True))
    assert row["test"].endswith(f"(0 of {gone.sum()} px)")
    assert " of " not in row["train"] + row["validation"]
