"""``landcover design``: a probability sample of a map, in files to interpret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.accuracy.sample_design import check_design_target, write_design
from pipeline.accuracy.sample_draw import draw_sample
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.accuracy.sample_draw import DesignSettings
    from pipeline.legend import ClassScheme
    from pipeline.workflow.outcome import Progress


_ASSESS = (
    "interpret the reference field in QGIS, then: landcover assess MAP --reference FILE --field reference "
    "--design DESIGN.json"
)
_SEQUENTIAL = (
    "interpret units in the order of their ids, as many as you like, then: landcover compare A B --sequential "
    "--reference FILE --field reference --design DESIGN.json; it says whether to go on"
)


def draw_design(
    maps: Sequence[Path],
    settings: DesignSettings,
    *,
    output: Path,
    scheme: ClassScheme | None,
    blind: bool,
    overwrite: bool,
    progress: Progress,
) -> Outcome:
    """Draw a sample from each map and write what is needed to interpret it.

    Several maps get a sample each, in files called after them.
    """
    tables, written, data = [], [], []
    several = len(maps) > 1
    targets = [output.with_name(f"{output.stem}_{path.stem}{output.suffix}") if several else output for path in maps]
    for target in targets:  # before any of them is drawn
        check_design_target(target, overwrite=overwrite)
    for number, (path, target) in enumerate(zip(maps, targets, strict=True)):
        progress("drawing", number, len(maps))
        drawn = draw_sample(path, settings, scheme=scheme)
        files = write_design(target, drawn, blind=blind, overwrite=overwrite)
        written += [files.geopackage, files.design, files.acatama, files.collect_earth]
        rows = tuple((item.name, f"{item.area_ha:,.1f}", f"{item.drawn}") for item in drawn.strata)
        tables.append(
            Table(f"{path.name}: {drawn.kind}, allocation: {drawn.allocation}", ("stratum", "ha", "units"), rows)
        )
        data.append({
            "map": str(path), "kind": drawn.kind, "allocation": drawn.allocation, "seed": drawn.seed,
            "units": len(drawn), "strata": [vars(item) for item in drawn.strata], "notes": list(drawn.notes),
        })  # fmt: skip
    return Outcome(
        summary=f"{sum(int(str(item['units'])) for item in data)} units drawn",
        written=tuple(written),
        tables=tuple(tables),
        hint=_SEQUENTIAL if settings.compare_with is not None else _ASSESS,
        data={"designs": data},
    )
