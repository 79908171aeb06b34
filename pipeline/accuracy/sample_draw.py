"""Draw a probability sample of a map, of one of four kinds.

Samples are drawn in two passes over strips of rows, so that memory does not grow with the map. The first counts the
pixels of every stratum in every strip; ranks are then drawn without replacement from the whole stratum, and the second
finds the pixels of these ranks, reading only strips that hold one. Every pixel of a stratum has the same chance,
exactly, and one seed gives one sample.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.accuracy.class_maps import StrataLayer, class_areas, codes_at, map_scheme, open_class_map
from pipeline.accuracy.sample_allocation import by_stratum, round_at_random, sample_size, share_out
from pipeline.accuracy.sample_design import SampleDesign, Stratum
from pipeline.accuracy.sample_pixels import ONE_START, Drawn, ValidPixels, count_frame, draw_grids, draw_squares, pick
from pipeline.accuracy.sample_strata import ChangeStrata, DifferenceStrata, MapStrata, open_strata
from pipeline.accuracy.settings import EXPECTED_USERS, OTHERS, SQUARES, DesignSettings
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid
from pipeline.legend import NODATA, ClassScheme
from pipeline.maps.legends import check_same_legend

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from pipeline.accuracy.assess_frame import DesignKind

# Units to look at, at most, where two maps differ: most comparisons are decided before.
COMPARE_SIZE = 300


def draw_sample(
    map_path: Path | str, settings: DesignSettings | None = None,
    *, layer: StrataLayer | None = None, scheme: ClassScheme | None = None,
) -> SampleDesign:  # fmt: skip
    """A probability sample of a map's valid pixels.

    Args:
        map_path: The class map.
        settings: The sample to draw.
        layer: Strata in place of those that the settings name.
        scheme: The legend where the map does not carry one.

    Raises:
        ReferenceDataError: more units than pixels or squares, an allocation that the strata cannot give, a distance
            that units cannot keep.
        LegendError: an earlier map with another legend.
    """
    settings = settings or DesignSettings()
    told, scheme = scheme, map_scheme(map_path, scheme)
    rng = np.random.default_rng(settings.seed)
    with ExitStack() as stack:
        dataset = stack.enter_context(open_class_map(map_path))
        if layer is None:
            layer = _named_layer(map_path, settings, scheme=scheme, told=told, stack=stack)
        if settings.kind == "stratified":
            strata = layer or stack.enter_context(MapStrata(map_path, scheme))
            drawn = _stratified(dataset, strata, settings, rng)
        elif settings.kind in SQUARES:
            drawn = draw_squares(dataset, layer, settings, rng)
        else:
            drawn = _unstratified(dataset, settings, rng)
        return _assemble(dataset, drawn, settings, scheme=scheme, rng=rng, within=layer)


def _named_layer(
    map_path: Path | str, settings: DesignSettings, *, scheme: ClassScheme, told: ClassScheme | None, stack: ExitStack
) -> StrataLayer | None:
    """The strata that the settings name; None where none is: the map's classes, or, for squares, the whole map."""
    if settings.change_from is not None:
        if told is None:
            check_same_legend([map_path, settings.change_from])
        return stack.enter_context(ChangeStrata(settings.change_from, map_path, scheme=scheme, on_later=True))
    if settings.compare_with is not None:
        if told is None:
            check_same_legend([map_path, settings.compare_with])
        return stack.enter_context(DifferenceStrata(map_path, settings.compare_with, scheme=scheme))
    if settings.strata is None:
        return None
    edges = settings.strata_edges
    layer = open_strata(settings.strata, map_path=map_path, scheme=scheme, field=settings.strata_field, edges=edges)
    stack.enter_context(layer)
    return layer


def _stratified(
    dataset: DatasetReader, layer: StrataLayer, settings: DesignSettings, rng: np.random.Generator
) -> Drawn:
    count = count_frame(dataset, layer)
    units = count.pixels.sum(axis=0)
    values = np.flatnonzero(units)
    names = [layer.name(int(value)) for value in values]
    if settings.compare_with is not None:
        size = min(settings.size or COMPARE_SIZE, int(units.sum()))
        shares, how = (
            round_at_random(size, units=units[values], rng=rng),
            "one chance for every pixel where maps differ",
        )
    else:
        shares, how = share_out(
            settings.size, settings.allocation or "olofsson", units=[int(n) for n in units[values]],
            expected=by_stratum(settings.expected_users, names), target_se=settings.target_se,
        )  # fmt: skip
    row, col, stratum = pick(dataset, layer, count, values, shares, rng)
    table = tuple(
        Stratum(int(value), name, int(units[value]), float(count.area_ha[value]), drawn)
        for value, name, drawn in zip(values, names, shares, strict=True)
    )
    chance = (np.array(shares) / units[values])[stratum]
    return Drawn("stratified", table, layer.source, how, row, col, stratum, chance)


def _unstratified(dataset: DatasetReader, settings: DesignSettings, rng: np.random.Generator) -> Drawn:
    """Pixels of the whole map: at random, or on square grids with random starts (about as many as wanted)."""
    layer, size, starts = ValidPixels(), settings.size, settings.starts
    count = count_frame(dataset, layer)
    total = int(count.pixels.sum())
    if size is None:
        expected = settings.expected.get(OTHERS, EXPECTED_USERS)
        size = sample_size([total], expected_users=[expected], target_se=settings.target_se)
    if not 1 <= size <= total:
        raise ReferenceDataError("sample size", got=size, expected=f"1 to {total}, the valid pixels of the map")
    if settings.kind == "simple_random":
        row, col, stratum = pick(dataset, layer, count, np.array([0]), [size], rng)
        chance, how, clusters = np.full(len(row), size / total), "none", None
    else:
        row, col, grids, step = draw_grids(dataset, count.windows, total=total, size=size, starts=starts, rng=rng)
        stratum, clusters = np.zeros(len(row), dtype=np.intp), grids
        chance = np.full(len(row), starts / grids.in_frame)
        how = f"every {step}th pixel in both directions from {starts} random start{'s' * (starts > 1)}"
    kind: DesignKind = "simple random" if settings.kind == "simple_random" else "systematic"
    whole = Stratum(0, "all", total, float(count.area_ha.sum()), len(row))
    return Drawn(kind, (whole,), "none", how, row, col, stratum, chance, clusters)


def _assemble(
    dataset: DatasetReader, drawn: Drawn, settings: DesignSettings,
    *, scheme: ClassScheme, rng: np.random.Generator, within: StrataLayer | None,
) -> SampleDesign:  # fmt: skip
    """Units in random order, so that their numbers give no stratum away; squares stay together for the field.

    Pixels and areas of the map's classes are those ``within`` the strata, where these may cover a part of the map.
    """
    order = np.arange(len(drawn.row)) if settings.kind in SQUARES else rng.permutation(len(drawn.row))
    row, col = drawn.row[order], drawn.col[order]
    pixels, area = class_areas(dataset.name, within=within)
    present = [int(code) for code in np.flatnonzero(pixels) if code != NODATA]
    one_start = drawn.kind == "systematic" and drawn.clusters is not None and len(drawn.clusters.sizes) == 1
    plain: dict[str, Any] = {name: getattr(drawn, name) for name in ("kind", "strata", "allocation")}
    return SampleDesign(
        **plain,
        seed=settings.seed,
        map_name=Path(dataset.name).name,
        strata_source=drawn.source,
        grid=Grid.of(dataset),
        scheme=scheme,
        class_pixels={code: int(pixels[code]) for code in present},
        class_area_ha={code: float(area[code]) for code in present},
        row=row,
        col=col,
        stratum=drawn.stratum[order],
        map_code=codes_at(dataset, row, col),
        inclusion=drawn.inclusion[order],
        clusters=drawn.clusters and replace(drawn.clusters, unit=drawn.clusters.unit[order]),
        notes=(ONE_START,) if one_start else (),
    )
