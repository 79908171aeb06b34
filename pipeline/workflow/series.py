"""``landcover series``: consistent annual maps, their changes, and areas per year with a trend from one panel."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.series import AnnualMaps, TransitionCounter, annual_maps, consistent_strips, read_costs
from pipeline.accuracy.totals import Panel, assess_panel
from pipeline.errors import ReferenceDataError
from pipeline.files import check_target, csv_text, prepare_folder, scratch_folder, write_json, write_text
from pipeline.inference.rows import RowStore
from pipeline.legend import NODATA
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.style import CONFIDENCE, PERCENT_NODATA
from pipeline.workflow.accuracy import percent, with_interval
from pipeline.workflow.outcome import Outcome, Progress, Table

if TYPE_CHECKING:
    from pipeline.accuracy.settings import ReferenceSettings, SeriesSettings

TRANSITIONS, FIGURES = "transitions.csv", "series.json"
_SHOWN = 12
_COUNTS = (
    "These are counts of pixels and no area estimates: the maps' errors are in them. A panel gives areas with "
    "intervals: landcover series MAP... --reference PANEL."
)


def map_series(
    paths: Sequence[Path], settings: SeriesSettings,
    *, folder: Path, panel: ReferenceSettings | None = None, overwrite: bool = False, progress: Progress,
) -> Outcome:  # fmt: skip
    """Write the consistent maps of a series and what they say of change; with a panel, areas per year and their trend.

    Raises:
        ReferenceDataError: maps that are no series, or a panel that does not fit.
        OutputError: a file exists and is not to be overwritten, or cannot be written.
    """
    maps = annual_maps(paths, years=settings.years)
    if len(maps.scheme) == 1:
        raise ReferenceDataError("series of maps of one class", path=paths[0], expected="two classes or more")
    if not 1 / len(maps.scheme) < (accuracy := settings.accuracy):
        raise ReferenceDataError("accuracy of the maps", got=accuracy, expected="a share that is better than chance")
    costs = read_costs(settings.costs, maps.scheme, change=settings.change_cost)
    targets = [folder / path.name for path in maps.paths]
    if len(set(targets)) < len(targets) or {path.resolve() for path in maps.paths} & {
        path.resolve() for path in targets
    }:
        raise ReferenceDataError("names of the maps", path=folder, expected="a name each, in another folder")
    for target in [*targets, folder / TRANSITIONS, folder / FIGURES]:
        check_target(target, overwrite=overwrite)
    if panel is not None:  # what is wrong with it is said before anything is written
        assess_panel(maps, maps.paths, panel)
    counter = _write_maps(maps, costs, targets, accuracy=accuracy, overwrite=overwrite, progress=progress)
    rows = counter.rows(costs)
    data: dict[str, object] = {
        "years": list(maps.years), "transitions": rows, "filled_ha": counter.filled_ha,
        "flickers_ha": {"before": counter.flickers_ha[0], "after": counter.flickers_ha[1]},
    }  # fmt: skip
    declared, yearly = bool(np.isinf(costs).any()), maps.years[-1] - maps.years[0] == len(targets) - 1
    tables = [_transition_table(rows, declared=declared)]
    hints = []
    if len(targets) > 2:  # noqa: PLR2004 - there, away and back
        within = "within two years" if yearly else "within three maps"
        flickers = "{:,.1f} ha in the maps, {:,.1f} ha in the consistent ones".format(*counter.flickers_ha)
        hints.append(f"a change and back {within}: {flickers}")
    if panel is not None:
        found = assess_panel(maps, targets, panel)
        data["panel"] = found.to_json()
        tables.append(_area_table(found))
        hints.append(found.words())
    else:
        hints.append(_COUNTS)
    heads = ("from", "to", "from_year", "to_year", "before_ha", "after_ha", "illogical")
    text = csv_text([heads, *([row[key] for key in heads] for row in rows)], ends="\r\n")
    written = (*targets, write_text(folder / TRANSITIONS, text), write_json(folder / FIGURES, data))
    before, after = (sum(float(str(row[key])) for row in rows) for key in ("before_ha", "after_ha"))
    illogical = f"{sum(float(str(row['before_ha'])) for row in rows if row['illogical']):,.1f} ha of it illogical"
    step = "year by year" if yearly else "map by map"
    return Outcome(
        summary=f"{len(targets)} maps, {maps.years[0]} to {maps.years[-1]}: {before:,.1f} ha of change {step}, "
        f"{illogical if declared else 'none declared illogical'}; {after:,.1f} ha in the consistent maps",
        written=written,
        tables=tuple(tables),
        hint="\n".join(hints),
        data=data,
    )


def _write_maps(
    maps: AnnualMaps, costs: NDArray[np.float64], targets: Sequence[Path],
    *, accuracy: float, overwrite: bool, progress: Progress,
) -> TransitionCounter:  # fmt: skip
    """Write the consistent maps with their confidence; gives the changes."""
    counter, shape, count = TransitionCounter(maps), maps.grid.shape, len(targets)
    prepare_folder(targets[0].parent)
    with scratch_folder(targets[0].parent / "series") as work, ExitStack() as stack:
        stores = [
            [
                stack.enter_context(RowStore.create(work / f"{kind}{number}", shape=shape, fill=fill))
                for number in range(count)
            ]
            for kind, fill in (("codes", NODATA), ("sure", PERCENT_NODATA))
        ]
        for strip in consistent_strips(maps, costs, accuracy=accuracy):
            counter.add(strip)
            for kind, layers in zip(stores, (strip.codes, strip.confidence), strict=True):
                for store, layer in zip(kind, layers, strict=True):
                    store.write(strip.window, layer)
            progress("series", strip.window.row_stop, maps.grid.height)
        tags = {"LANDCOVER_SERIES": {"maps": [path.name for path in maps.paths], "accuracy": accuracy}}
        for codes, sure, target in zip(*stores, targets, strict=True):
            write_class_map(target, codes, grid=maps.grid, scheme=maps.scheme, tags=tags, overwrite=overwrite)
            conf = target.with_name(target.stem.removesuffix("_lc") + "_conf.tif")
            write_percent(conf, sure, grid=maps.grid, layer=CONFIDENCE, tags=tags, overwrite=overwrite)
    return counter


def _transition_table(rows: Sequence[dict[str, object]], *, declared: bool) -> Table:
    shown = sorted(rows, key=lambda row: not row["illogical"])[:_SHOWN]
    heads = ("from", "to", "years", "ha in the maps", "ha in consistent maps", "")
    return Table(
        f"changes, the {'illogical ones' if declared else 'largest'} first; all in {TRANSITIONS}",
        heads,
        tuple(
            (
                str(row["from"]), str(row["to"]), f"{row['from_year']} to {row['to_year']}",
                f"{row['before_ha']:,.1f}", f"{row['after_ha']:,.1f}", "illogical" if row["illogical"] else "",
            )
            for row in shown
        ),
    )  # fmt: skip


def _area_table(found: Panel) -> Table:
    rows = tuple(
        (name, *(with_interval(item, ",.1f") for item in items), with_interval(found.trend_ha[name], "+,.2f"))
        for name, items in found.areas_ha.items()
    )
    right = ("(overall accuracy)", *(percent(item.figures.overall_accuracy) for item in found.assessments), "")
    return Table("area in ha by the panel", ("class", *map(str, found.years), "ha per year"), (*rows, right))
