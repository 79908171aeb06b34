"""Which design the figures assume, from a design file, from strata, or from nothing; and that in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.assess_frame import Clusters, DesignKind, Frame
from pipeline.accuracy.class_maps import CODES, OUTSIDE, StrataLayer, class_areas, open_class_map, read_at
from pipeline.accuracy.sample_pixels import ONE_START, count_frame
from pipeline.accuracy.sample_strata import MapStrata
from pipeline.errors import ReferenceDataError

if TYPE_CHECKING:
    from pipeline.accuracy.assess_reference import ReferenceUnits
    from pipeline.accuracy.sample_design import SampleDesign
    from pipeline.legend import ClassScheme

# Pixels int64 [256] and area in ha float64 [256] per class code.
Counted = tuple["NDArray[np.int64]", "NDArray[np.float64]"]
MIN_PER_POST_STRATUM = 2
_TILE_PX = 512
# Areas of the same pixels, added up in another order and written with fewer digits, differ by less.
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class AssumedDesign:
    """A frame and what must be said about it."""

    frame: Frame  # How the units were drawn
    words: str  # The sentence that explains it
    notes: tuple[str, ...] = ()  # What else must be said
    strata_ha: tuple[float, ...] = ()  # Area of each stratum of the frame in ha
    # Mapped area in ha per class code, [256], of the part of the map that the frame covers
    class_ha: tuple[float, ...] = ()

    @property
    def area_ha(self) -> float:
        """Area in ha that the figures speak of: that of the strata that have units."""
        return float(np.asarray(self.strata_ha)[self.frame.counts > 0].sum())


def assume_plain(units: ReferenceUnits, told: str | None, *, scheme: ClassScheme, counted: Counted) -> AssumedDesign:
    """Units without a design: simple random or systematic if the user says so, else no probability sample."""
    if told is None:
        words = (
            f"The {len(units)} reference {units.kind} are not a probability sample of the map: the figures "
            "describe these units, are not estimates for the map, and have no standard errors or intervals."
        )
        return _alone("not a probability sample", len(units), words, scheme=scheme, counted=counted)
    if units.kind != "points":
        raise ReferenceDataError(f"polygons as a {told} sample of pixels", fix="use points, or leave the design out")
    return _unstratified(units, told, scheme=scheme, counted=counted)


def _alone(kind: DesignKind, n: int, words: str, *, scheme: ClassScheme, counted: Counted) -> AssumedDesign:
    """The whole map as one stratum; words "" are those of its design."""
    pixels, area = (part[list(scheme.codes)].sum() for part in counted)
    frame = Frame(kind, np.zeros(n, dtype=np.intp), np.array([float(pixels)]), ("all",))
    return AssumedDesign(frame, words or _sentence(frame, n), strata_ha=(float(area),), class_ha=tuple(counted[1]))


def _unstratified(units: ReferenceUnits, told: str, *, scheme: ClassScheme, counted: Counted) -> AssumedDesign:
    """Pixels drawn from the whole map: the map's classes are post-strata where each has units enough."""
    kind: DesignKind = "simple random" if told == "simple random" else "systematic"
    notes = (ONE_START,) if kind == "systematic" else ()
    frame, strata_ha, class_ha = _by_map_class(kind, units, scheme=scheme, counted=counted)
    if (frame.counts[frame.sizes > 0] >= MIN_PER_POST_STRATUM).all():
        return AssumedDesign(frame, _sentence(frame, len(units)), notes, strata_ha, class_ha)
    note = "not post-stratified by map class, as a class has fewer than 2 units"
    return replace(_alone(kind, len(units), "", scheme=scheme, counted=counted), notes=(*notes, note))


def _by_map_class(
    kind: DesignKind, units: ReferenceUnits, *, scheme: ClassScheme, counted: Counted
) -> tuple[Frame, tuple[float, ...], tuple[float, ...]]:
    """The map's classes as strata or post-strata, their areas, and those of all codes."""
    sizes, area = (part[list(scheme.codes)] for part in counted)
    index = scheme.code_to_index[units.map_code].astype(np.intp)
    frame = Frame(
        kind, index, sizes.astype(np.float64), scheme.names,
        strata_are_map_classes=True, post_stratified=kind != "stratified",
    )  # fmt: skip
    return frame, tuple(area), tuple(counted[1])


def assume_strata(
    units: ReferenceUnits, layer: StrataLayer, *, map_path: Path | str, scheme: ClassScheme
) -> tuple[ReferenceUnits, AssumedDesign]:
    """Units drawn at random within strata: the map's classes, or any raster or polygons.

    Raises:
        ReferenceDataError: polygons as units, or no unit in any stratum.
    """
    if units.kind != "points":
        raise ReferenceDataError("polygons as a stratified sample of pixels", fix="use points, or leave the strata out")
    if isinstance(layer, MapStrata):
        frame, strata_ha, class_ha = _by_map_class("stratified", units, scheme=scheme, counted=class_areas(map_path))
        return units, AssumedDesign(frame, _sentence(frame, len(units)), (), strata_ha, class_ha)
    with open_class_map(map_path) as data:
        found = count_frame(data, layer)
        shape, block = (data.height, data.width), (_TILE_PX, _TILE_PX)
        values = read_at(layer.read, units.row, units.col, shape, block=block, kind=np.dtype(np.int32))
    count, area = found.pixels.sum(axis=0), class_areas(map_path, within=layer)[1]
    present = np.flatnonzero(count)
    units = units.keep(values != OUTSIDE, dict.fromkeys(range(len(units)), "outside the strata"))
    if not len(units):
        raise ReferenceDataError("no reference unit lies in a stratum", got=layer.source)
    index = np.searchsorted(present, values[values != OUTSIDE]).astype(np.intp)
    frame = Frame("stratified", index, count[present].astype(np.float64), tuple(layer.name(int(v)) for v in present))
    words = _sentence(frame, len(units))
    return units, AssumedDesign(frame, words, (), tuple(found.area_ha[present]), tuple(area))


def assume_drawn(
    units: ReferenceUnits, design: SampleDesign, *, scheme: ClassScheme, map_path: Path | str
) -> tuple[ReferenceUnits, AssumedDesign]:
    """Units of a design file, found by their identifiers.

    The sample may assess another map than the one it was drawn from: its strata then are not that map's classes.

    Raises:
        ReferenceDataError: units without identifiers, unknown to the design, or moved.
    """
    position = _positions(units, design, map_path)
    missing = len(design) - len(position) - sum(item.reason == "not interpreted" for item in units.excluded)
    notes = list(design.notes)
    if missing > 0:
        notes.append(f"{missing} of the design's {len(design)} units have no usable reference")
    if len(position) < len(design):
        notes.append("strata keep their sizes: units without reference count as missing at random within their stratum")
    codes = np.array([stratum.value for stratum in design.strata])
    other = bool((units.map_code != design.map_code[position]).any()) or scheme.codes != design.scheme.codes
    same = design.strata_are_map_classes and not other
    index = design.stratum[position]
    names = tuple(stratum.name for stratum in design.strata)
    sizes = np.array([stratum.units for stratum in design.strata], dtype=np.float64)
    area = np.array([stratum.area_ha for stratum in design.strata])
    counted = class_areas(map_path) if other else _counted_by(design)
    if same:
        order = scheme.code_to_index[codes].astype(np.intp)
        sizes, area = _spread(sizes, order, len(scheme)), _spread(area, order, len(scheme))
        names, index = scheme.names, order[index]
    if other:
        its_classes = ": its classes are not the strata" if design.strata_are_map_classes else ""
        notes.append(f"the map differs from the one the sample was drawn from{its_classes}")
    clusters = _clusters(design, position)
    if design.kind in {"simple random", "systematic"} and clusters is None:
        plain = _unstratified(units, design.kind, scheme=scheme, counted=counted)
        return units, replace(plain, notes=tuple(dict.fromkeys([*plain.notes, *notes])))
    mapped_ha, strata_ha = float(counted[1][list(scheme.codes)].sum()), float(area.sum())
    if abs(mapped_ha - strata_ha) > _SAME * mapped_ha:  # the design does not say which pixels its strata hold
        notes.append(
            f"mapped areas are of {mapped_ha:,.1f} ha, estimated areas of the {strata_ha:,.1f} ha of the strata"
        )
    frame = Frame(design.kind, index, sizes, names, strata_are_map_classes=same, clusters=clusters)
    return units, AssumedDesign(frame, _sentence(frame, len(units)), tuple(notes), tuple(area), tuple(counted[1]))


def _counted_by(design: SampleDesign) -> Counted:
    """Pixels and area per code of the map that the sample was drawn from."""
    pixels, area = np.zeros(CODES, dtype=np.int64), np.zeros(CODES)
    pixels[list(design.class_pixels)] = list(design.class_pixels.values())
    area[list(design.class_area_ha)] = list(design.class_area_ha.values())
    return pixels, area


def _positions(units: ReferenceUnits, design: SampleDesign, map_path: Path | str) -> NDArray[np.intp]:
    """Index in the design of every unit, checked against the design's coordinates."""
    from pyproj import Transformer

    if not units.has_ids:
        raise ReferenceDataError(
            "reference without the field 'id' of its design", fix="keep the field when you copy the sample"
        )
    every = [*units.id, *(item.id for item in units.excluded)]
    wrong = [name for name in every if not name.isdigit() or not 1 <= int(name) <= len(design)]
    if wrong:
        raise ReferenceDataError(
            "reference units that the design does not have: " + ", ".join(wrong[:10]),
            expected=f"id 1 to {len(design)}",
            fix="give the design file that was written with this sample",
        )  # fmt: skip
    position = np.array([int(name) - 1 for name in units.id], dtype=np.intp)
    with open_class_map(map_path) as dataset:
        crs = dataset.crs
    x, y = units.x, units.y
    if crs != design.grid.crs:
        x, y = Transformer.from_crs(crs.to_wkt(), design.grid.crs.to_wkt(), always_xy=True).transform(x, y)
    want_x, want_y = design.xy
    size_x, size_y = design.grid.pixel_size
    moved = (np.abs(x - want_x[position]) > size_x) | (np.abs(y - want_y[position]) > size_y)
    if moved.any():
        first = ", ".join(units.id[i] for i in np.flatnonzero(moved)[:10])
        raise ReferenceDataError(
            f"{int(moved.sum())} reference units lie elsewhere than in the design: {first}",
            fix="give the design file that was written with this sample",
        )
    return position


def _clusters(design: SampleDesign, position: NDArray[np.intp]) -> Clusters | None:
    drawn = design.clusters
    if drawn is None or (design.kind == "systematic" and len(drawn.sizes) == 1):
        return None  # one grid is one cluster: no variance between clusters
    used, index = np.unique(drawn.unit[position], return_inverse=True)
    sizes = drawn.sizes[used].astype(np.float64)
    if drawn.stratum is None:
        return Clusters(index.astype(np.intp), sizes, drawn.in_frame)
    return Clusters(index.astype(np.intp), sizes, drawn.in_stratum, drawn.stratum[used])


def _spread(sizes: NDArray[np.float64], order: NDArray[np.intp], classes: int) -> NDArray[np.float64]:
    full = np.zeros(classes)
    full[order] = sizes
    return full


def _sentence(frame: Frame, n: int) -> str:
    if frame.clusters is not None:
        drawn, every = len(frame.clusters.sizes), int(frame.clusters.every.sum())
        if frame.kind == "systematic":
            return (
                f"The figures assume a systematic sample: {n} pixels on {drawn} grids whose starts were drawn at "
                f"random from {every} (variance between the grids: Gautschi 1957; Student's t for the intervals)."
            )
        within = "" if frame.clusters.stratum is None else f" within {len(frame.names)} strata"
        return (
            f"The figures assume a {frame.kind} sample: {n} pixels in {drawn} of {every} squares drawn at random"
            f"{within} (variances between squares: Stehman 1997; Student's t for the intervals)."
        )
    if frame.post_stratified:
        return (
            f"The figures assume a {frame.kind} sample of {n} pixels, post-stratified by map class "
            "(Olofsson et al. 2014, eqs. 1-11, given the units that fell into each class)."
        )
    if frame.kind != "stratified":
        return f"The figures assume a {frame.kind} sample of {n} pixels (Cochran 1977; ratio estimators)."
    source = "Olofsson et al. 2014, eqs. 1-11" if frame.strata_are_map_classes else "Stehman 2014"
    strata = (
        "the map's classes"
        if frame.strata_are_map_classes
        else f"{len(frame.names)} strata other than the map's classes"
    )
    return f"The figures assume a stratified random sample of {n} pixels; the strata are {strata} ({source})."
