"""``landcover assess MAP`` of a continuous map: a probability sample, or a raster on every pixel."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.accuracy.class_maps import is_raster
from pipeline.accuracy.totals import totals_of_map
from pipeline.accuracy.value_maps import compare_with_values
from pipeline.diagnostics.scoring import ValueScore, score_values
from pipeline.errors import ReferenceDataError
from pipeline.files import write_json
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.accuracy.settings import ReferenceSettings


def assess_values(path: Path, settings: ReferenceSettings, *, output: Path | None) -> Outcome:
    """Mean and total of a continuous map from a probability sample with figures at its units, or figures of a raster.

    Raises:
        ReferenceDataError: a reference that says nothing of this map.
    """
    if is_raster(settings.reference):
        return _on_all_pixels(path, settings, output=output)
    if settings.field is None:
        raise ReferenceDataError("reference without a field", fix="name the measured attribute with --field")
    if settings.strata is not None or settings.assist is not None:
        what = "strata" if settings.strata is not None else "assist"
        fix = "give the file of the design" if what == "strata" else "leave it out: the map is what assists"
        raise ReferenceDataError(f"{what} for a continuous map", path=path, fix=fix)
    found = totals_of_map(path, reference=settings.reference, field=settings.field, design=settings.design)
    score = score_values("map", found.measured, found.mapped[:, 0], found.mapped[:, 1:])
    unit, means = found.quantity.unit, {"sample alone": found.totals.direct, "sample and map": found.totals.regression}
    area = found.area_ha
    rows = tuple(
        (
            name, f"{item.estimate:.4g}", f"{item.low:.4g} to {item.high:.4g}", f"{item.se:.3g}",
            f"{item.estimate * area:,.5g}", f"{item.low * area:,.5g} to {item.high * area:,.5g}",
        )
        for name, item in means.items()
    )  # fmt: skip
    data = {
        "target": found.quantity.to_json(), "design": found.design, "area_ha": found.area_ha,
        "mean": asdict(found.totals), "total": asdict(found.totals.regression.times(found.area_ha)),
        "total_unit": f"{unit} x ha".strip(), "at_units": score.to_json(),
    }  # fmt: skip
    heads = (f"mean {found.quantity.title}", "estimate", "95 % interval", "standard error", "x ha", "95 % interval")
    gain = f"the map is worth {found.totals.gain:.1f} times as large a sample"
    figures = f"R2 {score.r2:.3f}, RMSE {score.rmse:.4g}, bias {score.bias:+.3g} at {score.samples} units"
    return Outcome(
        summary=f"{path.name}: {figures}; {gain}",
        tables=(Table(f"{found.area_ha:,.1f} ha, {found.design} sample, regression estimator", heads, rows),),
        written=(write_json(output, data),) if output else (), data=data,
    )  # fmt: skip


def _on_all_pixels(path: Path, settings: ReferenceSettings, *, output: Path | None) -> Outcome:
    """Agreement with a reference raster on all pixels that both know: no sample, so no interval.

    Raises:
        ReferenceDataError: a field or a design, which a raster has not.
    """
    if settings.field is not None:
        fix = "leave --field out: the first band is the reference"
        raise ReferenceDataError(
            "a reference raster has no field", path=settings.reference, got=settings.field, fix=fix
        )
    found = compare_with_values(path, settings.plain_raster())
    score = ValueScore("map", found.pixels, found.r2, found.rmse, found.mae, found.bias, found.coverage, found.width)
    heads = ("R2", "RMSE", "MAE", "bias", "coverage of 90 %", "width", "pixels", "ha")
    row = (
        *(f"{value:.3g}" for value in (found.r2, found.rmse, found.mae, found.bias, found.coverage, found.width)),
        f"{found.pixels:,}", f"{found.area_ha:,.1f}",
    )  # fmt: skip
    data = {
        "target": found.quantity.to_json(), "design": "census", "area_ha": found.area_ha, "share": found.share,
        "on_all_pixels": score.to_json(), "words": found.words(),
    }  # fmt: skip
    figures = f"R2 {found.r2:.3f}, RMSE {found.rmse:.4g}, bias {found.bias:+.3g}"
    return Outcome(
        summary=f"{path.name}: {figures} (agreement on all pixels)",
        tables=(Table(f"{found.quantity.title}: agreement on all pixels", heads, (row,)),),
        hint=found.words(), written=(write_json(output, data),) if output else (), data=data,
    )  # fmt: skip
