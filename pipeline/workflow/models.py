"""``landcover model show`` and ``landcover export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.documents import read_json
from pipeline.errors import ConfigError, ModelError, OutputError, counted
from pipeline.files import check_target
from pipeline.inference.sources import STORED
from pipeline.model.describe import describe, describe_text
from pipeline.model.spec import ENCODERS
from pipeline.model.weights import save_encoder
from pipeline.training.pretrain import pretrain
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.model.bundle import ModelBundle
    from pipeline.training.settings import PretrainSettings
    from pipeline.workflow.outcome import Progress

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


def show_model(path: Path) -> Outcome:
    """What a model file says of itself, and of a run folder's model how good its run found it; no weights are read.

    Raises:
        ModelError: not one of ours, cut in half, or of a newer version.
    """
    about, judged = describe_text(path), _judged(path)
    return Outcome(summary="\n".join([about, *judged]), data={"model": describe(path), "judged": judged})


def _judged(path: Path) -> list[str]:
    """Figures of the run that the model lies in, where they were made after it; else how to get them."""
    figures = path.resolve().parents[1] / "accuracy.json"
    if not figures.is_file() or figures.stat().st_mtime < path.stat().st_mtime:
        return ["judged       not yet, or elsewhere: landcover run, crossval or assess with its configuration"]
    found = read_json(figures, what="accuracy of the run")
    items = [found, *found.get("baselines", [])]
    if "macro_f1" not in found:
        return [f"judged       {item['method']}: R2 {item['r2']:.3f}, RMSE {item['rmse']:.4g}" for item in items[:1]]
    return [
        f"judged       {item['method']}: overall accuracy {100 * item['overall_accuracy']:.1f} %, "
        f"macro-F1 {item['macro_f1']:.3f}, on {found['test_polygons']} test polygons (no probability sample)"
        for item in items
    ]


def export_model(
    path: Path,
    *,
    form: str,
    output: Path | None,
    tile_px: int,
    scale: float | None = None,
    offset: float | None = None,
    overwrite: bool,
) -> Outcome:
    """Write a model for other programs.

    Args:
        path: The model.
        form: "onnx" or "torch".
        output: The file; None for the model's name with another suffix.
        tile_px: Side of the tiles, fixed in the graph.
        scale: value = DN x scale + offset of the rasters that the graph will be fed; None for both: as the files of the
            training scenes stored them, or, where the model does not know, the values themselves.
        offset: See scale.
        overwrite: Replace a file of that name.

    Raises:
        ConfigError: an unknown format.
        OutputError: the file exists.
    """
    if form not in SUFFIX:
        raise ConfigError("option --format", got=form, expected="onnx or torch")
    target = output or path.with_suffix(SUFFIX[form])
    check_target(target, overwrite=overwrite)
    from pipeline.model.bundle import load_bundle
    from pipeline.model.export import export_onnx, export_torch

    bundle = load_bundle(path)
    fed = fed_values(bundle, scale=scale, offset=offset)
    scales, offsets = [scale for scale, _ in fed], [offset for _, offset in fed]
    if form == "onnx":
        export_onnx(target, bundle, tile_px=tile_px, scale=scales, offset=offsets)
        hint = "in QGIS: Plugins > Deepness, choose this file as the model. "
    else:
        export_torch(target, bundle, tile_px=tile_px, scale=scales, offset=offsets)
        hint = "Load it with torch.export.load. "
    data = {"bands": list(bundle.bands), "scale": scales, "offset": offsets}
    return Outcome(summary=f"{path.name} as {form}", written=(target,), hint=hint + fed_text(bundle, fed), data=data)


def fed_values(bundle: ModelBundle, *, scale: float | None, offset: float | None) -> list[tuple[float, float]]:
    """Scale and offset of each band from the numbers that the graph is fed to the model's values."""
    if scale is not None or offset is not None:
        one = (1.0 if scale is None else scale, 0.0 if offset is None else offset)
        return [one] * len(bundle.bands)
    stored = bundle.provenance.get(STORED, {})
    return [(float(factor), float(add)) for factor, add in (stored.get(name, (1.0, 0.0)) for name in bundle.bands)]


def fed_text(bundle: ModelBundle, fed: list[tuple[float, float]]) -> str:
    """What a raster must hold, in one line: its bands in order, and how their numbers become values."""
    rules = dict.fromkeys(fed)
    texts = [f"value = number x {factor:g}{f' {add:+g}' if add else ''}" for factor, add in rules]
    bands = ", ".join(bundle.bands)
    if len(rules) == 1:
        what = "values as they are" if (1.0, 0.0) in rules else f"raw numbers ({texts[0]})"
        return f"It expects {len(bundle.bands)} bands in this order: {bands}; {what}"
    each = ", ".join(f"{name} ({factor:g}, {add:g})" for name, (factor, add) in zip(bundle.bands, fed, strict=True))
    return f"It expects {len(bundle.bands)} bands in this order, as raw numbers with (scale, offset): {each}"


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
    rows = (("mean of the band", f"{found.baseline:.3f}"), (f"after {last['step']:.0f} steps", f"{last['loss']:.3f}"))
    return Outcome(
        summary=f"{name} pretrained on {counted(len(job.sources), 'scene')} in {last['step']:.0f} batches",
        written=(target,),
        hint=f"use it with training: {{context: {{enabled: true, encoder: {name}, weights: {target}}}}}; "
        "landcover crossval tells whether it helps",
        tables=(Table("error of missing values, in deviations", ("given by", "error"), rows),),
        data={"encoder": name, "baseline": found.baseline, "history": found.history, "bands": about["bands"]},
    )
