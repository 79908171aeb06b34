"""The whole job, from configuration to report, with the chip classifier."""

from __future__ import annotations

import csv
import json
import warnings

from pipeline.model.bundle import load_bundle
from pipeline.workflow.costs import estimate_stages, job_encoder
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.stages import run_stages
from tests.fakes.small_world import write_world


def estimates(job):
    """What the stages of a job take, with the encoder that it gets."""
    return estimate_stages(job, job_encoder(job))


def test_a_job_with_a_chip_classifier_runs_to_its_report(tmp_path):
    training = {"head": "chip", "pixels": {"steps": 20}, "experts": {"trees": 2}}
    config = write_world(tmp_path, training=training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_stages(config, last="report", force=False, overwrite=False, progress=no_progress)
    run = tmp_path / "run"
    found = {item.stage: item for item in estimates(Job.load(config))}
    assert 0 < found["train"].seconds < 60
    assert found["train"].memory_bytes > 0
    bundle = load_bundle(next(run.rglob("model.safetensors")))
    assert (len(bundle.members), bundle.head) == (1, "chip")
    assert bundle.specs[0].statistics
    assert not str(bundle.provenance["calibration"]).startswith("none: the model learned")
    figures = json.loads(next(run.rglob("accuracy.json")).read_text())
    assert 0 <= figures["overall_accuracy"] <= 1
    with next(run.rglob("training.csv")).open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["10", "20"]
