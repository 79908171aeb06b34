"""``landcover model show`` and ``landcover export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.files import check_target
from pipeline.model.describe import describe, describe_text
from pipeline.workflow.outcome import Outcome

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


def show_model(path: Path) -> Outcome:
    """What a model file says of itself; only its header is read.

    Raises:
        ModelError: not one of ours, cut in half, or of a newer version.
    """
    return Outcome(summary=describe_text(path), data={"model": describe(path)})


def export_model(
    path: Path, *, form: str, output: Path | None, tile_px: int, scale: float, offset: float, overwrite: bool
) -> Outcome:
    """Write a model for other programs.

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
    scales, offsets = ((value,) * len(bundle.bands) for value in (scale, offset))
    if form == "onnx":
        export_onnx(target, bundle, tile_px=tile_px, scale=scales, offset=offsets)
        hint = "in QGIS: Plugins > Deepness, choose this file as the model; raster bands must be in the model's order"
    else:
        export_torch(target, bundle, tile_px=tile_px, scale=scales, offset=offsets)
        hint = "load it with torch.export.load"
    return Outcome(summary=f"{path.name} as {form}", written=(target,), hint=hint, data={"bands": list(bundle.bands)})
