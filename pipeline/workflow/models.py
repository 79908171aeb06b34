"""``landcover model show`` and ``export``; ``landcover weights``: which weights there are, what they expect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.documents import read_json
from pipeline.errors import ConfigError, ModelError, OutputError, counted
from pipeline.files import check_target, hash_file
from pipeline.inference.sources import STORED
from pipeline.model.checks import scene_bands
from pipeline.model.describe import describe, describe_text, is_forecast_model, read_forecast_header
from pipeline.model.pretrained import SEARCH_ORDER, SceneBands, search_encoders
from pipeline.model.records import WeightRecord, fetch_weights, find_record, weight_records
from pipeline.model.spec import ENCODERS
from pipeline.model.transfer import nearest_band
from pipeline.model.weights import FILE_SUFFIXES, read_weights, record_weights, save_encoder
from pipeline.training.pretrain import pretrain
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import Outcome, Progress, Table, no_progress

if TYPE_CHECKING:
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.training.settings import PretrainSettings

_STARTS = "first layer, where training.context.encoder names the encoder: it is fitted to the bands of the scene"
_NOT_SHOWN = {"name", "starts_from", "known_bands", "why_not"}
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


def show_model(path: Path) -> Outcome:
    """What a model file says of itself, and of a run folder's model how good its run found it; no weights are read.

    Raises:
        ModelError: not one of ours, cut in half, or of a newer version.
    """
    if is_forecast_model(path):
        return _show_forecast(path)
    about, judged = describe_text(path), _judged(path)
    return Outcome(summary="\n".join([about, *judged]), data={"model": describe(path), "judged": judged})


def _show_forecast(path: Path) -> Outcome:
    """What the model of a forecast says of itself."""
    about = read_forecast_header(path)
    steps, tested = about["steps"], about["tested"]
    lines = [
        f"model        {path.name} ({path.stat().st_size / 1e6:.1f} MB) of a forecast of {about['name']}",
        f"channels     {', '.join(about['channels'])}, {counted(about['cells'], 'cell')}",
        f"learned      {steps['count']:,} steps, {steps['first']} to {steps['last']}",
        f"cycles       {', '.join(map(str, about['seasons'])) or 'none'} (steps)",
        f"beside it    {', '.join(name for names in about['beside'].values() for name in names) or 'nothing'}",
        *(f"{item['ahead']:>4} ahead   mean absolute error {item['mae']['network']:.4g}, {tested['first']} to "
          f"{tested['last']}" for item in tested["horizons"]),
    ]  # fmt: skip
    hint = f"next: landcover predict --model {path} --scene SERIES -o next"
    return Outcome(summary="\n".join(lines), data={"model": about}, hint=hint)


def _judged(path: Path) -> list[str]:
    """Figures of the run that the model lies in, where they were made after it; else how to get them."""
    figures = path.resolve().parents[1] / "accuracy.json"
    if not figures.is_file() or figures.stat().st_mtime < path.stat().st_mtime:
        return ["judged       not yet, or elsewhere: landcover run, crossval or assess with its configuration"]
    found = read_json(figures, what="accuracy of the run")
    others = found.get("baselines", [])
    if isinstance(others, dict):  # of chips
        others = [{"method": name, **figures} for name, figures in others.items()]
    items = [found, *others]
    if "macro_f1" not in found:
        return [f"judged       {item['method']}: R2 {item['r2']:.3f}, RMSE {item['rmse']:.4g}" for item in items[:1]]
    tested = f"{found['test_polygons']} test polygons" if "test_polygons" in found else f"{found['tested']} test chips"
    return [
        f"judged       {item['method']}: overall accuracy {100 * item['overall_accuracy']:.1f} %, "
        f"macro-F1 {item['macro_f1']:.3f}, on {tested} (no probability sample)"
        for item in items
    ]


def export_model(
    path: Path,
    *, form: str, output: Path | None, tile_px: int, scale: float | None = None, offset: float | None = None,
    overwrite: bool,
) -> Outcome:  # fmt: skip
    """Write a model for other programs.

    Tiles have a side of ``tile_px``, fixed in the graph. ``scale`` and ``offset`` (value = DN x scale + offset) are
    those of the rasters that the graph will be fed; None for both: as the files of the training scenes stored them, or,
    where the model does not know, the values themselves.

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
    export, hint = {
        "onnx": (export_onnx, "in QGIS: Plugins > Deepness, choose this file as the model. "),
        "torch": (export_torch, "Load it with torch.export.load. "),
    }[form]
    export(target, bundle, tile_px=tile_px, scale=scales, offset=offsets)
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
    *, settings: PretrainSettings, encoder: str | None, output: Path | None, overwrite: bool, progress: Progress,
) -> Outcome:  # fmt: skip
    """Pretrain the encoder of a job on all of its scenes, and write it as a weights file.

    Raises:
        OutputError: the file exists.
        ModelError: no such encoder.
    """
    job = Job.load(config)
    job.require_scenes()
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


def list_weights(
    *, encoder: str | None = None, sensor: str | None = None, config: Path | None = None, scene: str | None = None
) -> Outcome:
    """All weights of encoders that can be built, and the order in which ``weights: auto`` looks for them.

    Records are the libraries' own; nothing is downloaded.

    Raises:
        ConfigError: no such encoder or sensor, or both a configuration and a scene.
    """
    records = weight_records()
    for option, value, known in (
        ("--encoder", encoder, [name for name in ENCODERS if name != "none"]),
        ("--sensor", sensor, sorted({one for item in records for one in item.sensors})),
    ):
        if value is not None and value not in known:
            raise ConfigError(f"option {option}", got=value, expected="one of " + ", ".join(known))
    source = _source(config, scene)
    wanted = source.band_names if source is not None else ()
    scene_is = scene_bands(source) if source is not None else None
    facts = [
        record_facts(item, scene_is)
        for item in records
        if encoder in {None, item.architecture} and sensor in {None, *item.sensors}
    ]
    if scene_is is not None:
        facts.sort(key=lambda item: (bool(item["why_not"]), -item["known_bands"]))
    kept = sum(item["cached"] for item in facts)
    order = tuple((str(number), text) for number, text in enumerate(SEARCH_ORDER, 1))
    found, text = None, ""
    if scene_is is not None:
        auto = search_encoders(scene_is)
        found = auto.describe() or None
        text = f"; the scene has {', '.join(wanted)}; weights: auto takes {found or f'none ({auto.why_not})'}"
    return Outcome(
        summary=f"{len(facts)} sets of weights, {kept} of them here{text}",
        tables=(_list_table(facts, wanted), Table("weights: auto takes the first that fits", ("", "where"), order)),
        hint="details: landcover weights show NAME; download: landcover weights get NAME; use: context.weights",
        data={"bands": list(wanted), "weights": facts, "search_order": list(SEARCH_ORDER), "auto": found},
    )


def show_weights(
    name: str,
    *, encoder: str = "resnet18", config: Path | None = None, scene: str | None = None, fetch: bool = False,
    progress: Progress = no_progress,
) -> Outcome:  # fmt: skip
    """All that is known of one set of weights: by its name, or of a file.

    Raises:
        ModelError: no such weights, or they cannot be downloaded, or a file that is none.
    """
    source, path = _source(config, scene), Path(name)
    wanted = source.band_names if source is not None else ()
    if path.is_file():
        facts = _file_facts(path, wanted)
    elif path.suffix.lower() in FILE_SUFFIXES:
        raise ModelError("no such weights file", path=name)
    else:
        record = find_record(name, architecture=encoder)
        if fetch:
            _download(record, progress)
        facts = record_facts(record, scene_bands(source) if source is not None else None)
    why = facts.get("why_not")
    rows = tuple(
        (band, start or "mean of all", "" if start else "no band of theirs is near")
        for band, start in facts["starts_from"].items()
    )
    return Outcome(
        summary=_facts_text(facts),
        tables=(Table(_STARTS, ("band", "starts from", ""), rows),) if wanted else (),
        hint=f"weights: auto does not take it for this scene: {why}"
        if why
        else f"use: training: {{context: {{weights: {facts['name']}}}}}",
        data={"weights": facts},
    )


def get_weights(name: str, *, encoder: str = "resnet18", progress: Progress = no_progress) -> Outcome:
    """Download one set of weights into torch's hub folder and check it by its hash.

    Raises:
        ModelError: no such weights, or they cannot be downloaded, or are not what their name says.
    """
    record = find_record(name, architecture=encoder)
    there = record.cache.is_file()
    if record.file is not None and not there:
        raise ModelError(f"weights {record.name} come with a package", fix=record.source)
    _download(record, progress)
    facts = record_facts(record, None) | {"sha256": hash_file(record.cache)}
    return Outcome(
        summary=f"{record.name} {'was here' if there else 'is downloaded'}, {record.cache.stat().st_size / 1e6:.1f} MB"
        f"\n  licence       {record.licence or 'not known'}\n  about         {record.about}\n"
        f"  source        {record.source or record.url}\n  sha256        {facts['sha256']}",
        written=(record.cache,),
        hint=f"use: training: {{context: {{weights: {record.name}}}}}",
        data={"weights": facts},
    )


def _download(record: WeightRecord, progress: Progress) -> None:
    """Download and read them, so that what is there can be used.

    Raises:
        ModelError: see :func:`get_weights`.
    """
    what = f"{record.name}, licence {record.licence or 'not known'}"
    fetch_weights(record, progress=lambda done, total: progress(what, done, total))
    record_weights(record)


def record_facts(record: WeightRecord, scene: SceneBands | None) -> dict[str, Any]:
    """What a record says, JSON-ready; of a scene also why ``weights: auto`` does not take it there ("": it may).

    And how each band would start where ``training.context.encoder`` names the encoder too.
    """
    facts: dict[str, Any] = {
        "name": record.name,
        "encoder": record.architecture,
        "sensor": record.sensor or None,
        "level": record.level or None,
        "bands": list(record.bands),
        "scaling": _scaling(record.scaling),
        "url": record.url,
        "about": record.about,
        "source": record.source,
        "licence": record.licence or None,
        "cache": str(record.cache),
        "cached": record.cache.is_file(),
    }
    facts |= {} if scene is None else {"why_not": scene.why_not(record)}
    return facts | _matching(record.bands, scene.bands if scene is not None else ())


def _file_facts(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    weights = read_weights(path)
    facts: dict[str, Any] = {
        "name": str(path),
        "encoder": weights.architecture or None,
        "bands": list(weights.bands) or None,
        "inputs": weights.inputs,
        "tensors": len(weights.tensors),
        "scaling": _scaling(weights.scaling),
        "cached": True,
    }
    return facts | (_matching(weights.bands, wanted) if weights.bands else {"starts_from": {}})


def _scaling(scaling: tuple[tuple[float, ...], tuple[float, ...]] | None) -> dict[str, list[float]] | None:
    return {"mean": list(scaling[0]), "std": list(scaling[1])} if scaling else None


def _matching(known: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    """How many wanted bands the weights know by name, and which band each starts from (None: the mean of all)."""
    starts = {band: nearest_band(band, known) for band in wanted}
    return {
        "known_bands": sum(band in known for band in wanted),
        "unused_bands": [band for band in known if band not in starts.values()] if wanted else [],
        "starts_from": starts,
    }


def _source(config: Path | None, scene: str | None) -> Source | None:
    """The first scene of a configuration, or a scene; None for neither."""
    if config is not None and scene is not None:
        raise ConfigError("--config together with --scene", fix="give one of them")
    if config is not None:
        job = Job.load(config, dry=True)
        job.require_scenes()
        return job.sources[0]
    if scene is not None:
        from pipeline.scenes.joining import join_scenes
        from pipeline.scenes.opening import open_scene
        from pipeline.scenes.settings import InputSettings

        return join_scenes([("", open_scene(scene))], InputSettings())[0]
    return None


def _list_table(facts: Sequence[dict[str, Any]], wanted: Sequence[str]) -> Table:
    rows = tuple(
        (
            item["name"],
            _short(item["sensor"]),
            item["level"] or "-",
            str(len(item["bands"])),
            (item["licence"] or "?").replace("terms of the ImageNet data may apply", "see show"),
            "yes" if item["cached"] else "no",
            *([f"{item['known_bands']} of {len(wanted)}", item["why_not"] or "fits"] if wanted else []),
        )
        for item in facts
    )
    heads = ("name", "sensor", "level", "bands", "licence", "here")
    return Table("weights", (*heads, "own bands", "weights: auto") if wanted else heads, rows)


def _short(sensors: str | None) -> str:
    """Several Landsats as one word."""
    names = (sensors or "-").split()
    landsat = sum(name.startswith("landsat") for name in names) > 1
    kept = [name for name in names if not (landsat and name.startswith("landsat"))]
    return ", ".join([*kept, *(["landsat"] if landsat else [])])


def _facts_text(facts: dict[str, Any]) -> str:
    """The facts on a line each."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return f"mean {', '.join(f'{v:g}' for v in value['mean'])}; std {', '.join(f'{v:g}' for v in value['std'])}"
        return ", ".join(value) if isinstance(value, list) else str(value)

    shown = {key: value for key, value in facts.items() if key not in _NOT_SHOWN and value}
    if "url" in shown and "scaling" not in shown:
        shown["scaling"] = "not known: the stem meets standardised bands"
    return "\n".join([str(facts["name"]), *(f"  {key.replace('_', ' '):13} {text(v)}" for key, v in shown.items())])
