"""``landcover assess MAP``, ``compare``, ``change``, ``crosswalk``: accuracy and areas from reference data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import geopandas as gpd
import rasterio

from pipeline.accuracy.assess_assisted import confidence_beside
from pipeline.accuracy.assess_compare import compare_maps, compare_sequentially
from pipeline.accuracy.assess_estimators import NOT_PROBABILITY, Estimate
from pipeline.accuracy.assess_map import Assessment, assess_map
from pipeline.accuracy.assess_rasters import change_map
from pipeline.accuracy.assess_zone import write_zone, zone_of_map
from pipeline.accuracy.crosswalk import LEFT_OUT, SHIPPED, read_rows, to_codes
from pipeline.accuracy.sample_design import check_design_target, write_design
from pipeline.accuracy.sample_draw import draw_sample
from pipeline.accuracy.value_maps import holds_values
from pipeline.documents import read_json
from pipeline.errors import ConfigError, InputError, LabelWarning, LegendError, counted
from pipeline.files import check_target, csv_text, write_json, write_text
from pipeline.labels.vectors import read_layer
from pipeline.legend import KNOWN_LEGENDS, ClassScheme, LandClass
from pipeline.maps.legends import read_scheme
from pipeline.maps.vectors import check_geopackage_name
from pipeline.maps.zonal import write_zonal, zonal_statistics
from pipeline.runs import LABELS
from pipeline.workflow.outcome import Outcome, Progress, Table
from pipeline.workflow.value_accuracy import assess_values

if TYPE_CHECKING:
    from pipeline.accuracy.assess_reference import ReferenceUnits
    from pipeline.accuracy.settings import DesignSettings, ReferenceSettings

# Dynamic World's own rasters start at 0 = water, which is nodata in a map: they serve as reference, with a crosswalk.
_PUBLIC = tuple(name for name in KNOWN_LEGENDS if name != "Dynamic World")

_ZONAL = ("classes", "values")


def assess_against_reference(
    path: Path, settings: ReferenceSettings, *, scheme: ClassScheme | None, output: Path | None, overwrite: bool
) -> Outcome:
    """Accuracy and areas of a map from reference points, polygons or a raster.

    Raises:
        OutputError: ``output`` exists and is not to be overwritten.
    """
    if output is not None:
        check_target(output, overwrite=overwrite, inputs=(path, settings.reference))
    if holds_values(path):
        return assess_values(path, settings, output=output)
    found = assess_map(path, settings, scheme=scheme)
    if settings.design is None and found.units is not None:
        _warn_of_learned(path, settings.reference, found.units)
        _warn_of_one_class(found, settings.reference)
    data = found.to_json()
    written = (write_json(output, data),) if output else ()
    label = "" if found.design.frame.is_probability else f" ({_label(found)})"
    tables = (_class_table(found), _matrix_table(found, shares=False), _matrix_table(found, shares=True))
    return Outcome(
        summary=f"{path.name}: overall accuracy {percent(found.figures.overall_accuracy)}{label}",
        tables=(*tables, *_kappa_table(found, data)),
        hint=found.words(),
        written=written,
        data=data,
    )


def _warn_of_one_class(found: Assessment, reference: Path) -> None:
    """LabelWarning where all units are of one class of several: nothing can be mapped as it wrongly there."""
    counts = found.figures.error_matrix.counts.sum(axis=0)
    names = [name for name, count in zip(found.figures.error_matrix.names, counts, strict=True) if count]
    if len(names) == 1 and len(found.mapped_ha) > 1:
        text = f"{reference}: all units are {names[0]}: what is mapped as it elsewhere is not looked at, so that its "
        what = "user's accuracy says nothing; add units of the other classes (objects: landcover assess OBJECTS.gpkg)"
        warnings.warn(f"{text}{what}", LabelWarning, stacklevel=3)


def _warn_of_learned(path: Path, reference: Path, units: ReferenceUnits) -> None:
    """LabelWarning where reference units lie in polygons that the map of a run learned from."""
    learned = path.resolve().parent.parent / LABELS
    if not learned.is_file():
        return
    labels = read_layer(learned, field=None, layer="labels")
    polygons = labels[labels["part"].isin(["train", "validation"])]
    with rasterio.open(path) as dataset:
        points = gpd.points_from_xy(units.x, units.y, crs=dataset.crs).to_crs(labels.crs)
    inside = int(points.within(polygons.geometry.union_all()).sum())
    if inside:
        text = f"{reference}: {inside} of {counted(len(units), 'unit')} lie in polygons that {path.name} learned from"
        warnings.warn(f"{text}: the figures are far too good; use a sample of its own (landcover design)", LabelWarning,
                      stacklevel=3)  # fmt: skip


def zonal_of(
    path: Path, polygons: Path, *, layer: str | None, output: Path, overwrite: bool, kind: str | None = None
) -> Outcome:
    """Statistics of a map in each polygon; ``kind`` is classes or values, None where the map says.

    Raises:
        ConfigError: another kind.
    """
    if kind not in {None, *_ZONAL}:
        raise ConfigError("option --as", got=kind, expected=" or ".join(_ZONAL))
    check_target(output, overwrite=overwrite, inputs=(path, polygons))
    check_geopackage_name(output, also=(".csv",))
    frame, names = zonal_statistics(path, polygons, layer=layer, classes=None if kind is None else kind == _ZONAL[0])
    shares = any(name.startswith("share ") for name in names)
    rows = tuple((name, f"{float(frame[name].mean()):.4g}") for name in names)
    return Outcome(
        summary=f"{path.name}: statistics of {counted(len(frame), 'polygon')}, as a map of {_ZONAL[not shares]}",
        tables=(Table("mean over the polygons", ("", ""), rows),),
        written=(write_zonal(output, frame, overwrite=overwrite),), data={"polygons": len(frame)},
    )  # fmt: skip


def _label(found: Assessment) -> str:
    if found.design.frame.kind != "census":
        return NOT_PROBABILITY
    return "; ".join(["agreement on all pixels", *found.design.notes])


def _kappa_table(found: Assessment, data: dict[str, object]) -> tuple[Table, ...]:
    if not found.with_kappa:
        return ()
    beyond = data["agreement_beyond_chance"]
    names = ("kappa", "quantity_disagreement", "allocation_disagreement")
    values = tuple("-" if beyond[name] is None else f"{beyond[name]:.3f}" for name in names)  # type: ignore[index]
    heads = tuple(name.replace("_", " ") for name in names)
    return (Table("kappa is no measure of map accuracy; read the disagreements", heads, (values,)),)


def percent(item: Estimate) -> str:
    """An estimate as "87.4 % +- 1.9 %", the half-width of its 95 % interval; without what cannot be known.

    An interval that ends at 0 or 1 has no half-width: "100.0 % (88.4 to 100.0)".
    """
    return with_interval(item.scaled(100), ".1f", " %")


def with_interval(item: Estimate, form: str, unit: str = "") -> str:
    """An estimate with the half-width of its interval, or both its ends; "-" for what cannot be known."""
    if item.estimate is None:
        return "-"
    text = f"{item.estimate:{form}}{unit}"
    if item.ci95 is None:
        return text
    below, above = item.estimate - item.ci95[0], item.ci95[1] - item.estimate
    if abs(below - above) > 0.05:  # noqa: PLR2004 - they would be printed as different numbers
        return f"{text} ({item.ci95[0]:{form}} to {item.ci95[1]:{form}})"
    return f"{text} +- {above:{form}}{unit}"


def _class_table(found: Assessment) -> Table:
    rows = tuple(
        (
            name,
            percent(item.users_accuracy),
            percent(item.producers_accuracy),
            percent(item.f1),
            with_interval(found.area(name), ",.1f"),
            f"{found.mapped_ha[name]:,.1f}",
        )
        for name, item in found.figures.per_class.items()
    )
    label = "" if found.design.frame.is_probability else f" - {_label(found)}"
    heads = ("class", "user's", "producer's", "F1", "ha", "mapped ha")
    return Table(f"accuracy and area{label}", heads, rows, _without_interval(found))


def _without_interval(found: Assessment) -> tuple[str, ...]:
    """Why figures of a probability sample have no interval, a line for each reason."""
    if not found.design.frame.is_probability:
        return ()
    why: dict[str, list[str]] = {}
    figures = [("overall", found.figures.overall_accuracy)]
    for name, item in found.figures.per_class.items():
        kinds = {"user's": item.users_accuracy, "producer's": item.producers_accuracy, "F1": item.f1}
        figures += [(f"{kind} of {name}", figure) for kind, figure in kinds.items()]
    for name, figure in figures:
        if figure.estimate is not None and figure.ci95 is None and figure.note:
            why.setdefault(figure.note, []).append(name)
    return tuple(f"no interval for {', '.join(names)}: {note}" for note, names in why.items())


def _matrix_table(found: Assessment, *, shares: bool) -> Table:
    matrix = found.figures.error_matrix
    cells = matrix.proportions if shares else matrix.counts
    rows = tuple(
        (name, *(f"{100 * value:.2f}" if shares else str(int(value)) for value in row))
        for name, row in zip(matrix.names, cells, strict=True)
    )
    frame = found.design.frame
    what = "% of the area" if frame.is_probability or frame.kind == "census" else "% of the units"
    title = f"error matrix in {what}" if shares else "error matrix: map in rows, reference in columns"
    return Table(title, ("", *matrix.names), rows)


def compare_two(
    first: Path, second: Path, settings: ReferenceSettings, *, scheme: ClassScheme | None, second_crosswalk: str | None
) -> Outcome:
    """Two maps on one reference: McNemar's test and the paired interval of the difference."""
    found = compare_maps(first, second, settings, second_crosswalk=second_crosswalk, scheme=scheme)
    for path, one in ((first, found.first), (second, found.second)):
        if settings.design is None and one.units is not None:
            _warn_of_learned(path, settings.reference, one.units)
    rows = tuple((item.map_name, percent(item.figures.overall_accuracy)) for item in (found.first, found.second))
    label = "" if found.first.design.frame.is_probability else f" ({_label(found.first)})"
    return Outcome(
        summary=f"difference of overall accuracy (first minus second): {percent(found.difference)}{label}",
        tables=(Table(f"overall accuracy{label}", ("map", ""), rows),),
        hint=found.words(),
        data=found.to_json(),
    )


def compare_so_far(
    first: Path, second: Path, settings: ReferenceSettings, *, margin: float, scheme: ClassScheme | None
) -> Outcome:
    """Which of two maps is better, from the units looked at so far."""
    found = compare_sequentially(first, second, settings, margin=margin, scheme=scheme)
    return Outcome(summary=found.words(), data=found.to_json())


def zone_of(
    path: Path, settings: ReferenceSettings,
    *, output: Path, confidence: Path | None, applicability: Path | None, max_error: float, overwrite: bool,
) -> Outcome:  # fmt: skip
    """The part of a map that holds, as a mask and in a sentence."""
    check_target(output, overwrite=overwrite, inputs=(path, settings.reference))
    layer = confidence or confidence_beside(path, "confidence")
    found = zone_of_map(path, settings, confidence=layer, applicability=applicability, max_error=max_error)
    write_zone(output, found, map_path=path, confidence=layer, applicability=applicability)
    return Outcome(summary=found.words(), written=(output,), data=found.to_json())


def change_between(
    before: Path, after: Path, *, output: Path, scheme: ClassScheme | None = None, overwrite: bool
) -> Outcome:
    """From-to map and transition table of two maps with one legend."""
    check_target(output, overwrite=overwrite, inputs=(before, after))
    found = change_map(before, after, output=output, scheme=scheme, overwrite=overwrite)
    names = found.scheme.names
    rows = tuple(
        (name, *(f"{value:,.1f}" for value in areas)) for name, areas in zip(names, found.area_ha, strict=True)
    )
    data = found.to_json()
    left_out = f"{found.left_out_ha:,.1f} ha have no class in one of the maps and are left out\n"
    return Outcome(
        summary=f"change from {before.name} to {after.name}",
        tables=(Table("ha, from (rows) to (columns)", ("", *names), rows),),
        written=(output,),
        hint=f"{left_out if found.left_out_ha else ''}{data['note']}: {_command('design', output)}",
        data=data,
    )


def told_legend(told: str | None) -> ClassScheme | None:
    """The legend that ``--legend`` names: a JSON file of {code, name, color}, or a public legend; None if not given.

    Raises:
        LegendError: neither of them, or a file that is no legend.
    """
    if told is None:
        return None
    if told in _PUBLIC:
        return ClassScheme(tuple(LandClass(*row) for row in KNOWN_LEGENDS[told]))
    try:
        items = read_json(told, what="the legend")
    except InputError as err:
        public = ", ".join(f'"{name}"' for name in _PUBLIC)
        raise LegendError(
            "legend cannot be read", path=told, got=err, expected=f"JSON of code, name, color, or one of {public}"
        ) from err
    if not isinstance(items, list):
        raise LegendError("legend is not a list of {code, name, color}", path=told)
    return ClassScheme.from_json(items)


def write_crosswalk(table: str, *, output: Path, map_path: Path | None, overwrite: bool) -> Outcome:
    """Copy a crosswalk that comes with the program, to be edited; targets that are no class of the map are emptied.

    Raises:
        LegendError: no such table.
        OutputError: the file exists.
    """
    if table not in SHIPPED:
        raise LegendError("no such crosswalk", got=table, expected=", ".join(SHIPPED))
    check_target(output, overwrite=overwrite)
    rows = read_rows(table)
    scheme = read_scheme(map_path) if map_path is not None else None
    if scheme is not None:
        rows = [row | {"target": _target((row["target"], row["name"]), scheme)} for row in rows]
    note = f"classes of the map: {', '.join(scheme.names)}; " if scheme is not None else ""
    head = f"# {table} to the classes of your map. {note}'{LEFT_OUT}' leaves a class out.\n"
    empty = [row["name"] for row in rows if not row["target"]]
    return Outcome(
        summary=f"{output}: {len(rows)} classes of {table}, {len(empty)} of them without a target yet",
        written=(write_text(output, head + csv_text([rows[0], *(row.values() for row in rows)])),),
        tables=(Table("crosswalk", tuple(rows[0]), tuple(tuple(map(str, row.values())) for row in rows)),),
        hint=f"edit the last column; then: {_command('assess', map_path or 'MAP', '--reference', 'RASTER')} "
        f"--crosswalk {quote(str(output))}",
        data={"classes": rows, "without_target": empty},
    )


def _target(names: tuple[str, ...], scheme: ClassScheme) -> str:
    """The first of some names that is a class of the map, as the map spells it."""
    codes, _ = to_codes(list(names), scheme=scheme)
    return next((scheme.by_code(int(code)).name for code in codes if code > 0), "")


_ASSESS = "interpret the reference field in QGIS, then:"
_SEQUENTIAL = "interpret units in the order of their ids, as many as you like; whether to go on says:"


def _command(*words: str | Path) -> str:
    """A command to paste."""
    return f"landcover {' '.join(quote(str(word)) for word in words)}"


def draw_design(
    maps: Sequence[Path], settings: DesignSettings,
    *, output: Path, scheme: ClassScheme | None, blind: bool, overwrite: bool, progress: Progress,
) -> Outcome:  # fmt: skip
    """Draw a sample from each map and write what is needed to interpret it.

    Several maps get a sample each, in files called after them.
    """
    tables, written, data, commands = [], [], [], []
    several = len(maps) > 1
    targets = [output.with_name(f"{output.stem}_{path.stem}{output.suffix}") if several else output for path in maps]
    for target in targets:  # before any of them is drawn
        check_design_target(target, overwrite=overwrite)
    for number, (path, target) in enumerate(zip(maps, targets, strict=True)):
        progress("drawing", number, len(maps))
        drawn = draw_sample(path, settings, scheme=scheme)
        files = write_design(target, drawn, blind=blind, overwrite=overwrite)
        written += [files.geopackage, files.design, files.acatama, files.collect_earth]
        other = settings.compare_with
        command = ("assess", path) if other is None else ("compare", path, other, "--sequential")
        filled = ("--reference", files.geopackage, "--field", "reference", "--design", files.design)
        commands.append(_command(*command, *filled))
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
        hint="\n".join((_SEQUENTIAL if settings.compare_with is not None else _ASSESS, *commands)),
        data={"designs": data},
    )
