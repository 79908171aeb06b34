"""``landcover weights``: which pretrained weights there are, what they expect, which of a scene's bands they know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, ModelError
from pipeline.files import hash_file
from pipeline.model.pretrained import SEARCH_ORDER, find_encoders
from pipeline.model.records import WeightRecord, fetch_weights, find_record, weight_records
from pipeline.model.spec import ENCODERS
from pipeline.model.transfer import nearest_band
from pipeline.model.weights import FILE_SUFFIXES, read_weights, record_weights
from pipeline.scenes.derived import plain_scenes
from pipeline.workflow.outcome import Outcome, Progress, Table, no_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.scenes.scene import Source


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
    facts = [
        record_facts(item, wanted)
        for item in records
        if encoder in {None, item.architecture} and sensor in {None, *item.sensors}
    ]
    if wanted:
        facts.sort(key=lambda item: -item["known_bands"])
    kept = sum(item["cached"] for item in facts)
    order = tuple((str(number), text) for number, text in enumerate(SEARCH_ORDER, 1))
    found = _found_for(source) if source is not None else None
    return Outcome(
        summary=f"{len(facts)} sets of weights, {kept} of them here"
        + (f"; the scene has {', '.join(wanted)}; weights: auto takes {found or 'none'}" if wanted else ""),
        tables=(_list_table(facts, wanted), Table("weights: auto takes the first that fits", ("", "where"), order)),
        hint="details: landcover weights show NAME; download: landcover weights get NAME; use: context.weights",
        data={"bands": list(wanted), "weights": facts, "search_order": list(SEARCH_ORDER), "auto": found},
    )


def _found_for(source: Source) -> str | None:
    """What the search gives for a scene, in one line."""
    plain = plain_scenes(source)[0]
    found = find_encoders(
        tuple(source.band_names), sensor=plain.sensor, level=plain.level, units=source.units, weights="auto"
    )
    return "; ".join(encoder.describe() for encoder in found) or None


def show_weights(
    name: str,
    *,
    encoder: str = "resnet18",
    config: Path | None = None,
    scene: str | None = None,
    fetch: bool = False,
    progress: Progress = no_progress,
) -> Outcome:
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
        facts = record_facts(record, wanted)
    rows = tuple(
        (band, start or "mean of all", "" if start else "no band of theirs is near")
        for band, start in facts["starts_from"].items()
    )
    return Outcome(
        summary=_facts_text(facts),
        tables=(Table("bands of the scene", ("band", "starts from", ""), rows),) if wanted else (),
        hint=f"use: training: {{encoder: {facts['encoder']}, weights: {facts['name']}}}",
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
    facts = record_facts(record, ()) | {"sha256": hash_file(record.cache)}
    return Outcome(
        summary=f"{record.name} {'was here' if there else 'is downloaded'}, {record.cache.stat().st_size / 1e6:.1f} MB"
        f"\n  licence       {record.licence or 'not known'}\n  about         {record.about}\n"
        f"  source        {record.source or record.url}\n  sha256        {facts['sha256']}",
        written=(record.cache,),
        hint=f"use: training: {{encoder: {record.architecture}, weights: {record.name}}}",
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


def record_facts(record: WeightRecord, wanted: Sequence[str]) -> dict[str, Any]:
    """What a record says, JSON-ready; with ``wanted`` bands also how each of them would start."""
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
    return facts | _matching(record.bands, wanted)


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
        from pipeline.workflow.job import Job

        return Job.load(config, dry=True).sources[0]
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
            *([f"{item['known_bands']} of {len(wanted)}"] if wanted else []),
        )
        for item in facts
    )
    heads = ("name", "sensor", "level", "bands", "licence", "here")
    return Table("weights", (*heads, "own bands") if wanted else heads, rows)


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

    shown = {key: value for key, value in facts.items() if key not in {"name", "starts_from", "known_bands"} and value}
    if "url" in shown and "scaling" not in shown:
        shown["scaling"] = "not known: the stem meets standardised bands"
    return "\n".join([str(facts["name"]), *(f"  {key.replace('_', ' '):13} {text(v)}" for key, v in shown.items())])
