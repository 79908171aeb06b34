"""``landcover pretrain``: an encoder learns from the job's own scenes, without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ModelError, OutputError, counted
from pipeline.model.spec import ENCODERS
from pipeline.model.weights import save_encoder
from pipeline.training.pretrain import pretrain
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.training.settings import PretrainSettings
    from pipeline.workflow.outcome import Progress


def pretrain_job(
    config: Path,
    *,
    settings: PretrainSettings,
    encoder: str | None,
    output: Path | None,
    overwrite: bool,
    progress: Progress,
) -> Outcome:
    """Pretrain the encoder of a job on all of its scenes, and write it as a weights file.

    Args:
        config: The configuration file.
        settings: How.
        encoder: Another encoder than ``training.context`` builds.
        output: The file; default ``model/pretrained_<encoder>.safetensors`` in the run folder.
        overwrite: Replace it.
        progress: For the terminal.

    Raises:
        OutputError: the file exists.
        ModelError: no such encoder.
    """
    job = Job.load(config)
    name = encoder or job.config.training.context.architecture
    known = [item for item in ENCODERS if item != "none"]
    if name not in known:
        raise ModelError("encoder to pretrain", got=name, expected="one of " + ", ".join(known))
    target = output or job.open_folder().path / "model" / f"pretrained_{name}.safetensors"
    if target.suffix != ".safetensors":
        raise OutputError("a weights file of another format", path=target, expected=".safetensors")
    if target.exists() and not overwrite:
        raise OutputError("the file exists", path=target, fix="add --overwrite, or choose another with -o")
    found = pretrain(job.sources, settings=settings.model_copy(update={"encoder": name}), progress=progress)
    about = {
        "bands": list(found.preprocess.bands),
        "mean": list(found.preprocess.mean),
        "std": list(found.preprocess.std),
        "units": list(job.sources[0].units),
        "encoder": name,
        "task": "masked bands",
        "settings": found.settings.model_dump(mode="json"),
        "scenes": [source.id for source in job.sources],
        "history": found.history,
        "baseline": found.baseline,
    }
    save_encoder(target, found.tensors, about=about)
    last = found.history[-1] if found.history else {"step": 0, "loss": float("nan")}
    rows = (
        ("mean of the band", f"{found.baseline:.3f}"),
        (f"after {last['step']:.0f} steps", f"{last['loss']:.3f}"),
    )
    return Outcome(
        summary=f"{name} pretrained on {counted(len(job.sources), 'scene')} in {last['step']:.0f} batches",
        written=(target,),
        hint=f"use it with training: {{context: {{enabled: true, encoder: {name}, weights: {target}}}}}; "
        "landcover crossval tells whether it helps",
        tables=(Table("error of missing values, in deviations", ("given by", "error"), rows),),
        data={"encoder": name, "baseline": found.baseline, "history": found.history, "bands": about["bands"]},
    )
