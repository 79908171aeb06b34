"""SampleDesign: a drawn sample with all that the estimators, a reviewer and a second draw need to know.

It is written for those who interpret it (QGIS, AcATaMa, Collect Earth Online), and as JSON for the estimators.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from pipeline.accuracy.assess_frame import CLUSTER_DESIGNS, PROBABILITY_DESIGNS, DesignKind
from pipeline.documents import read_json
from pipeline.errors import OutputError, ReferenceDataError
from pipeline.files import flush, scratch_folder
from pipeline.grid import Grid
from pipeline.legend import ClassScheme
from pipeline.maps.style import from_template
from pipeline.maps.vectors import FAILURES, add_layer_style, undated

FORMAT = "landcover sampling design 1"
LAYER = "sample"
REFERENCE_FIELD = "reference"
CERTAINTY = ("sure", "fairly sure", "unsure")


@dataclass(frozen=True)
class Stratum:
    """One stratum: its value in the layer it came from, name, map units, area, and how many were drawn."""

    value: int
    name: str
    units: int
    area_ha: float
    drawn: int


@dataclass(frozen=True, eq=False)
class PrimaryUnits:
    """The squares of a cluster sample, or the grids of a systematic one."""

    unit: NDArray[np.intp]  # [unit] primary unit of each unit, 0..m-1
    sizes: NDArray[np.int64]  # [primary unit] valid map units in each sampled primary unit
    in_frame: int  # Primary units (or possible grids) with at least one valid pixel in the whole map
    side_px: int = 0  # Side of a square in pixels; 0 for grids
    # [primary unit] index into the strata where squares were drawn by strata, else None
    stratum: NDArray[np.intp] | None = None
    # Primary units in the whole map of each stratum, where squares were drawn by strata
    in_stratum: tuple[int, ...] = ()

    def to_json(self) -> dict[str, object]:
        """JSON-ready."""
        by_stratum = {} if self.stratum is None else {
            "stratum": self.stratum.tolist(), "in_stratum": list(self.in_stratum)
        }  # fmt: skip
        return {
            "in_frame": self.in_frame, "side_px": self.side_px, "unit": self.unit.tolist(),
            "sizes": self.sizes.tolist(), **by_stratum,
        }  # fmt: skip

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> PrimaryUnits:
        """What :meth:`to_json` gave."""
        stratum = np.asarray(plain["stratum"], dtype=np.intp) if "stratum" in plain else None
        return cls(
            np.asarray(plain["unit"], dtype=np.intp), np.asarray(plain["sizes"], dtype=np.int64),
            int(plain["in_frame"]), int(plain["side_px"]), stratum, tuple(map(int, plain.get("in_stratum", ()))),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class SampleDesign:
    """A probability sample of a map."""

    kind: DesignKind  # simple random, systematic, stratified, one-stage or two-stage cluster
    seed: int  # Seed that gives the same sample again
    map_name: str  # File name of the map
    strata_source: str  # "map classes", "change", "raster ...", "polygons ..." or "none"
    allocation: str  # How units were given to strata, in words
    grid: Grid  # The map's grid
    scheme: ClassScheme  # The map's legend
    strata: tuple[Stratum, ...]  # One or more strata; without stratification one of the whole map
    class_pixels: dict[int, int]  # Map pixels per class code, of a stratified sample those inside its strata
    class_area_ha: dict[int, float]  # Map area in ha per class code, of the same pixels
    row: NDArray[np.int32]  # [unit]
    col: NDArray[np.int32]  # [unit]
    stratum: NDArray[np.intp]  # [unit] index into ``strata``
    map_code: NDArray[np.uint8]  # [unit] the map's class, which interpreters must not see
    inclusion: NDArray[np.float64]  # [unit] inclusion probability
    # Primary units of a cluster design, or the grids of a systematic one, else None
    clusters: PrimaryUnits | None = None
    notes: tuple[str, ...] = ()  # What a reader of the figures must know about the draw

    def __len__(self) -> int:
        """Number of units."""
        return len(self.row)

    @property
    def xy(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates of the pixel centres in the map's CRS, float64 [unit] each."""
        a = self.grid.transform
        return np.float64(a.c) + a.a * (self.col + 0.5), np.float64(a.f) + a.e * (self.row + 0.5)

    @property
    def strata_are_map_classes(self) -> bool:
        """Whether each stratum is a class of the map."""
        return self.strata_source == "map classes"

    def to_json(self) -> dict[str, object]:
        """Everything, the map's classes at the units included: keep it from the interpreters."""
        a = self.grid.transform
        plain: dict[str, object] = {
            "format": FORMAT,
            "kind": self.kind,
            "seed": self.seed,
            "map": self.map_name,
            "strata_source": self.strata_source,
            "allocation": self.allocation,
            "grid": {
                "crs": self.grid.crs.to_wkt(), "transform": list(a)[:6],
                "height": self.grid.height, "width": self.grid.width,
            },
            "legend": self.scheme.to_json(),
            "strata": [vars(stratum) for stratum in self.strata],
            "classes": [
                {"code": code, "pixels": pixels, "area_ha": self.class_area_ha[code]}
                for code, pixels in self.class_pixels.items()
            ],
            "notes": list(self.notes),
            "units": {
                "id": list(range(1, len(self) + 1)),
                "row": self.row.tolist(),
                "col": self.col.tolist(),
                "stratum": self.stratum.tolist(),
                "map_code": self.map_code.tolist(),
                "inclusion_probability": self.inclusion.tolist(),
            },
        }  # fmt: skip
        return plain if self.clusters is None else plain | {"clusters": self.clusters.to_json()}


def read_design(path: Path | str) -> SampleDesign:
    """A design from the JSON file that :func:`write_design` wrote.

    Raises:
        ReferenceDataError: not such a file, or one that contradicts itself.
    """
    try:
        content = read_json(path, what="the sampling design", error=ReferenceDataError)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ReferenceDataError("not a sampling design", path=path, expected=f'JSON with format "{FORMAT}"')
        return _design(content)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
        raise ReferenceDataError("sampling design is incomplete", path=path, got=repr(err)) from err


def _design(content: dict[str, Any]) -> SampleDesign:
    if content["kind"] not in PROBABILITY_DESIGNS:
        raise ReferenceDataError("unknown kind of design", got=content["kind"], expected=", ".join(PROBABILITY_DESIGNS))
    units, grid = content["units"], content["grid"]
    plain: dict[str, Any] = {
        name: np.asarray(units[key], dtype=kind)
        for name, key, kind in (
            ("row", "row", np.int32), ("col", "col", np.int32), ("stratum", "stratum", np.intp),
            ("map_code", "map_code", np.uint8), ("inclusion", "inclusion_probability", np.float64),
        )
    }  # fmt: skip
    lengths = {len(values) for values in plain.values()}
    if len(lengths) != 1 or not len(plain["row"]):
        raise ReferenceDataError(
            "sampling design with lists of different length, or without units", got=sorted(lengths)
        )
    if plain["stratum"].min() < 0 or plain["stratum"].max() >= len(content["strata"]):
        raise ReferenceDataError("sampling design with units in a stratum that it does not list")
    grouped = content["kind"] in (*CLUSTER_DESIGNS, "systematic") and "clusters" in content
    return SampleDesign(
        **plain,
        **{key: content[key] for key in ("kind", "strata_source", "allocation")},
        seed=int(content["seed"]),
        map_name=content["map"],
        grid=Grid(CRS.from_wkt(grid["crs"]), Affine(*grid["transform"]), grid["height"], grid["width"]),
        scheme=ClassScheme.from_json(content["legend"]),
        strata=tuple(Stratum(**item) for item in content["strata"]),
        class_pixels={int(item["code"]): int(item["pixels"]) for item in content["classes"]},
        class_area_ha={int(item["code"]): float(item["area_ha"]) for item in content["classes"]},
        clusters=PrimaryUnits.from_json(content["clusters"]) if grouped else None,
        notes=tuple(content["notes"]),
    )


class DesignFiles(NamedTuple):
    """What was written."""

    geopackage: Path  # Points with a blank reference field, its list of classes and a style; for QGIS
    acatama: Path  # The same points as AcATaMa writes its own samples: one field ``id``
    collect_earth: Path  # LON, LAT, PLOTID in WGS84, as Collect Earth Online asks for
    design: Path  # What the estimators need, the map's classes included: not for the interpreters


def design_paths(geopackage: Path) -> DesignFiles:
    """The files that belong to ``sample.gpkg``."""
    stem = geopackage.stem
    return DesignFiles(
        geopackage,
        geopackage.with_name(f"{stem}_acatama.gpkg"),
        geopackage.with_name(f"{stem}_collect_earth.csv"),
        geopackage.with_name(f"{stem}_design.json"),
    )


def write_design(path: Path, design: SampleDesign, *, blind: bool = True, overwrite: bool = False) -> DesignFiles:
    """Write a sample as GeoPackage, AcATaMa copy, Collect Earth CSV and design JSON beside each other.

    Args:
        path: The GeoPackage, ending in ``.gpkg``.
        design: The sample.
        blind: Keep map class and stratum out of all files but the design JSON.
        overwrite: Replace files of the same name.

    Raises:
        OutputError: a file exists or cannot be written, or the name is not a GeoPackage's.
    """
    files = check_design_target(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path) as folder, undated():
            drafts = design_paths(folder / path.name)
            _write_points(drafts.geopackage, design, blind=blind)
            # AcATaMa keeps one integer field ``id`` from 1 (its core/sampling_design.py); labels live in its session.
            _points(design).to_file(drafts.acatama, layer=drafts.acatama.stem, driver="GPKG", engine="pyogrio")
            _write_collect_earth(drafts.collect_earth, design)
            drafts.design.write_text(json.dumps(design.to_json(), ensure_ascii=False), encoding="utf-8")
            # What is replaced may hold interpreted units: it goes once all that takes its place is whole.
            for draft, target in zip(drafts, files, strict=True):
                flush(draft)
                draft.replace(target)
    except (OSError, *FAILURES) as err:
        raise OutputError("sample cannot be written", path=path, got=err, fix="choose another place with -o") from err
    return files


def check_design_target(path: Path, *, overwrite: bool) -> DesignFiles:
    """The files of a sample, none of which is there unless it is to be replaced.

    Raises:
        OutputError: a file exists, or the name is not a GeoPackage's.
    """
    if path.suffix.lower() != ".gpkg":
        raise OutputError("a sample is a GeoPackage", path=path, expected="a name that ends in .gpkg")
    files = design_paths(path)
    for target in files:
        if target.exists() and not overwrite:
            raise OutputError("file exists; it may hold interpreted units", path=target, fix="pass --overwrite")
    return files


def _points(design: SampleDesign) -> Any:
    import geopandas

    x, y = design.xy
    frame = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(x, y), crs=design.grid.crs.to_wkt())
    frame.insert(0, "id", np.arange(1, len(design) + 1, dtype=np.int32))
    return frame


def _write_points(path: Path, design: SampleDesign, *, blind: bool) -> None:
    import pandas as pd

    frame = _points(design)
    for name in (REFERENCE_FIELD, "certainty", "comment"):
        frame[name] = pd.array([None] * len(frame), dtype="string")
    frame["inclusion_probability"] = design.inclusion
    if not blind:
        frame["map_class"] = [design.scheme.by_code(int(code)).name for code in design.map_code]
        frame["stratum"] = [design.strata[int(index)].name for index in design.stratum]
    frame.to_file(path, layer=LAYER, driver="GPKG", engine="pyogrio")
    add_layer_style(path, layer=LAYER, style=sample_style(design.scheme))


def _write_collect_earth(path: Path, design: SampleDesign) -> None:
    """Collect Earth Online manual, "Adding plots using .csv": LON, LAT, PLOTID first, in EPSG:4326."""
    import pandas as pd

    points = _points(design).to_crs("EPSG:4326")
    table = {"LON": points.geometry.x, "LAT": points.geometry.y, "PLOTID": points["id"]}
    pd.DataFrame(table).to_csv(path, index=False, float_format="%.8f", lineterminator="\r\n")


def sample_style(scheme: ClassScheme) -> str:
    """QML of the sample: colours by reference class, a list of classes to choose from, hidden columns hidden."""
    colors = [*((*item.rgb, 255) for item in scheme.classes), (255, 255, 255, 0)]
    return from_template(
        "sample.qml.jinja", field=REFERENCE_FIELD, names=scheme.names, colors=colors, certainty=CERTAINTY
    )
