"""Read and describe a model file from its header alone: no torch, no weights in memory.

A model file is one safetensors file: 8 bytes with the header's length, the header (JSON), the tensors. Ours lies in the
header's metadata under one key. Source: safetensors format, github.com/huggingface/safetensors, README "Format".
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

from pipeline.documents import parse_json
from pipeline.errors import InputError, ModelError

# Format 2 has a digest of header and tensors in the header.
FORMAT = 2
KEY = "landcover"
# The model of a forecast: its network has no bands and no classes. Written by pipeline.forecast.model_file.
FORECAST_FORMAT, FORECAST_KEY = 1, "landcover_forecast"
_LENGTH_BYTES = 8
# The limit of the safetensors library itself; a longer header is a text file whose first bytes look like a number.
_MAX_HEADER_BYTES = 100_000_000


def read_header(path: str | Path) -> dict[str, Any]:
    """What a model file says about itself: the JSON that ``save_bundle`` wrote.

    Raises:
        ModelError: no such file; not one of ours; a model of a forecast; cut in half; written by a newer version.
    """
    header, size = _safetensors_header(Path(path))
    metadata = header.pop("__metadata__", {})
    if isinstance(metadata, dict) and FORECAST_KEY in metadata and KEY not in metadata:
        raise ModelError(
            "the model of a forecast, which maps no scene", path=path,
            fix=f"forecast with it: landcover predict --model {path} --scene SERIES -o next",
        )  # fmt: skip
    if not isinstance(metadata, dict) or KEY not in metadata:
        raise ModelError(
            "not a landcover model: the file has no landcover header",
            path=path,
            fix="give the model.safetensors of a run; pretrained weights go into the setting 'weights'",
        )
    _refuse_cut(path, header, size)
    return _versioned(metadata[KEY], path, newest=FORMAT)


def is_forecast_model(path: str | Path) -> bool:
    """Whether a file is the model of a forecast; False for what cannot be read, which whoever reads it says."""
    try:
        metadata = _safetensors_header(Path(path))[0].get("__metadata__")
    except ModelError:
        return False
    return isinstance(metadata, dict) and FORECAST_KEY in metadata


def read_forecast_header(path: str | Path) -> dict[str, Any]:
    """What the model of a forecast says about itself.

    Raises:
        ModelError: no such file; not the model of a forecast; cut in half; written by a newer version.
    """
    header, size = _safetensors_header(Path(path))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or FORECAST_KEY not in metadata:
        raise ModelError("not the model of a forecast", path=path, fix="give the model.safetensors of a forecast")
    _refuse_cut(path, header, size)
    return _versioned(metadata[FORECAST_KEY], path, newest=FORECAST_FORMAT)


def _versioned(text: str, path: str | Path, *, newest: int) -> dict[str, Any]:
    """The JSON of a header whose version this program knows."""
    try:
        about: dict[str, Any] = parse_json(text)
        version = int(about["format"])
    except (InputError, ValueError, TypeError, KeyError) as err:
        raise ModelError("the header of the model cannot be read", path=path, got=repr(err)) from err
    if not 1 <= version <= newest:
        raise ModelError(
            "model written by a newer version" if version > newest else "the header of the model cannot be read",
            path=path, got=f"format {version}", expected=f"1 to {newest}", fix="update landcover-pipeline",
        )  # fmt: skip
    return about


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header and the bytes that follow it."""
    not_ours = "not a model file"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or length > _MAX_HEADER_BYTES:
                raise ModelError(not_ours, path=path, expected="a model.safetensors written by landcover train")
            text = file.read(length)
    except OSError as err:
        raise ModelError("cannot open the model file", path=path, got=err.strerror or err) from err
    if len(text) < length:
        raise ModelError("model file is cut off", path=path, got=f"{size} bytes", fix="copy or train it again")
    try:
        header = parse_json(text)
    except InputError as err:
        raise ModelError(not_ours, path=path, expected="a model.safetensors written by landcover train") from err
    if not isinstance(header, dict):
        raise ModelError(not_ours, path=path, expected="a model.safetensors written by landcover train")
    return header, size - _LENGTH_BYTES - length


def _refuse_cut(path: str | Path, tensors: dict[str, Any], size: int) -> None:
    try:
        needed = max((int(item["data_offsets"][1]) for item in tensors.values()), default=0)
    except (KeyError, TypeError, ValueError, IndexError) as err:
        raise ModelError("the header of the model cannot be read", path=path, got=repr(err)) from err
    if needed != size:
        raise ModelError(
            "model file is cut off" if needed > size else "model file has bytes beyond its end", path=path,
            got=f"{size} bytes of weights", expected=needed, fix="copy or train it again",
        )  # fmt: skip


def describe(path: str | Path) -> dict[str, Any]:
    """The header with the size of the file and the number of weights, JSON-ready.

    Raises:
        ModelError: as :func:`read_header`.
    """
    about = read_header(path)
    tensors, size = _safetensors_header(Path(path))
    tensors.pop("__metadata__", None)
    weights = sum(prod(item["shape"]) for name, item in tensors.items() if name.startswith("member"))
    return {"file": Path(path).name, "bytes": size, "weights": weights, **about}


def describe_text(path: str | Path) -> str:
    """The same as lines to read.

    Raises:
        ModelError: as :func:`read_header`.
    """
    about = describe(path)
    lines = [f"model        {about['file']} ({about['bytes'] / 1e6:.1f} MB, {about['weights'] / 1e6:.2f} M weights)"]
    for number, spec in enumerate(about["specs"], 1):
        lines.append(f"member {number}     {_network_text(spec)}, share {about['shares'][number - 1]:.2f}")
    # Two runs of one job write the same bytes, so no time is in them but the file's.
    of_file = f"{datetime.fromtimestamp(Path(path).stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC (date of the file)"
    when = about["provenance"].get("trained_utc") or of_file
    polygons = about["provenance"].get("polygons", {})
    learned = sum(polygons.get(part, 0) for part in ("train", "validation"))
    lines.append(
        f"trained      {when}, on {f'{learned} polygons and ' if learned else ''}pixels of {about['gsd_m']:.4g} m"
    )
    lines += [f"scene        {_scene_text(item)}" for item in about["sources"]] or ["scenes       unknown"]
    lines.append("classes")
    lines += [f"  {item['code']:>3}  {item['color']}  {item['name']}" for item in about["classes"]]
    lines.append("bands             unit         mean        deviation   training range")
    scaling = about["preprocess"]
    for i, band in enumerate(scaling["bands"]):
        low, high = about["value_range"][i]
        values = f"{scaling['mean'][i]:<11.4g} {scaling['std'][i]:<11.4g} {low:.4g} .. {high:.4g}"
        lines.append(f"  {band:<15} {about['units'][i]:<12} {values}")
    lines.append(f"temperature  {about['temperature']:g}")
    if line := about["provenance"].get("context", {}).get("line"):
        lines.append(f"encoder      {line}")
    if cut := about["provenance"].get("cut_short"):
        lines.append(f"cut short    {', '.join(cut)}: training.time_limit_s ended first")
    lines += [f"lifted       odds of {name} x {lift:g}" for name, lift in about["provenance"].get("lifted", {}).items()]
    return "\n".join(lines)


def _scene_text(item: dict[str, Any]) -> str:
    """A scene that was learned from, and its product."""
    product = " ".join(filter(None, (item["sensor"], item["level"], item.get("baseline", ""))))
    return f"{item.get('scene') or 'unknown'} ({product or 'sensor and level not known'})"


def _network_text(spec: dict[str, Any]) -> str:
    """What kind of network a member is."""
    if spec["head"] == "chip":
        return "chip network" if spec["encoder"] == "none" else f"chip network, {spec['encoder']}"
    if spec["encoder"] == "none":
        return "pixel network"
    return f"linear scores of {spec['encoder']}" if spec.get("columns") else f"U-Net, {spec['encoder']}"
