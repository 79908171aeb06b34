"""``landcover weights``: which pretrained weights there are, what they expect, which of a scene's bands they know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, ModelError
from pipeline.model.records import WeightRecord, find_record, weight_records
from pipeline.model.spec import ENCODERS
from pipeline.model.transfer import nearest_band
from pipeline.model.weights import load_weights, read_weights
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence


def list_weights(
    *, encoder: str | None = None, sensor: str | None = None, config: Path | None = None, scene: str | None = None
) -> Outcome:
    """All published weights of encoders that can be built, from the libraries' own records; nothing is downloaded.

    Args:
        encoder: Only those of one architecture.
        sensor: Only those whose record names this sensor.
        config: A configuration, whose bands are matched.
        scene: A scene, whose bands are matched.

    Raises:
        ConfigError: no such encoder or sensor, or both a configuration and a scene.
    """
    records = weight_records()
    for option, value, known in (
        ("--encoder", encoder, [name for name in ENCODERS if name != "none"]),
        ("--sensor", sensor, sorted({item.sensor for item in records if item.sensor})),
    ):
        if value is not None and value not in known:
            raise ConfigError(f"option {option}", got=value, expected="one of " + ", ".join(known))
    wanted = _bands_of(config, scene)
    facts = [
        record_facts(item, wanted)
        for item in records
        if encoder in {None, item.architecture} and sensor in {None, item.sensor}
    ]
    if wanted:
        facts.sort(key=lambda item: -item["known_bands"])
    kept = sum(item["cached"] for item in facts)
    return Outcome(
        summary=f"{len(facts)} sets of weights, {kept} of them downloaded"
        + (f"; the scene has {', '.join(wanted)}" if wanted else ""),
        tables=(_list_table(facts, wanted),),
        hint="details: landcover weights show NAME; use: training.context.weights in the configuration",
        data={"bands": list(wanted), "weights": facts},
    )


def show_weights(
    name: str, *, encoder: str = "resnet18", config: Path | None = None, scene: str | None = None, fetch: bool = False
) -> Outcome:
    """All that is known of one set of weights: by its name, or of a file.

    Args:
        name: A record's name, "imagenet", or a weights file.
        encoder: Architecture that "imagenet" is meant for.
        config: A configuration, whose bands are matched.
        scene: A scene, whose bands are matched.
        fetch: Download them if they are not there, and check them.

    Raises:
        ModelError: no such weights, or they cannot be downloaded, or a file that is none.
    """
    wanted, path = _bands_of(config, scene), Path(name)
    if path.is_file():
        facts = _file_facts(path, wanted)
    elif path.suffix in {".pth", ".pt", ".safetensors", ".ckpt"}:
        raise ModelError("no such weights file", path=name)
    else:
        record = find_record(name, architecture=encoder)
        if fetch:
            load_weights(record.name, architecture=record.architecture)
        facts = record_facts(record, wanted)
    rows = tuple(
        (band, source or "mean of all", "" if source else "no band of theirs is near")
        for band, source in facts["starts_from"].items()
    )
    return Outcome(
        summary=_facts_text(facts),
        tables=(Table("bands of the scene", ("band", "starts from", ""), rows),) if wanted else (),
        hint=f"use: training: {{encoder: {facts['encoder']}, weights: {facts['name']}}}",
        data={"weights": facts},
    )


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


def _bands_of(config: Path | None, scene: str | None) -> tuple[str, ...]:
    """Bands of a configuration's scenes, or of a scene; () for neither."""
    if config is not None and scene is not None:
        raise ConfigError("--config together with --scene", fix="give one of them")
    if config is not None:
        from pipeline.workflow.job import Job

        return tuple(Job.load(config).sources[0].band_names)
    if scene is not None:
        from pipeline.scenes.opening import open_scene

        return tuple(open_scene(scene).band_names)
    return ()


def _list_table(facts: Sequence[dict[str, Any]], wanted: Sequence[str]) -> Table:
    rows = tuple(
        (
            item["name"],
            item["sensor"] or "-",
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
