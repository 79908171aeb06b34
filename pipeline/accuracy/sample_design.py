"""SampleDesign: a drawn sample with all that the estimators, a reviewer and a second draw need to know."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from pipeline.accuracy.assess_frame import CLUSTER_DESIGNS, PROBABILITY_DESIGNS, DesignKind
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid
from pipeline.legend import ClassScheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "landcover sampling design 1"


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
    """The squares of a cluster sample, or the grids of a systematic one.

    Attributes:
        unit: int64 [unit]; primary unit of each unit, 0..m-1.
        sizes: int64 [primary unit]; valid map units in each sampled primary unit.
        in_frame: Primary units (or possible grids) with at least one valid pixel in the whole map.
        side_px: Side of a square in pixels; 0 for grids.
        stratum: int64 [primary unit]; index into the strata where squares were drawn by strata, else None.
        in_stratum: Primary units in the whole map of each stratum, where squares were drawn by strata.
    """

    unit: NDArray[np.intp]
    sizes: NDArray[np.int64]
    in_frame: int
    side_px: int = 0
    stratum: NDArray[np.intp] | None = None
    in_stratum: tuple[int, ...] = ()

    def reordered(self, order: NDArray[np.intp]) -> PrimaryUnits:
        """The same, of units in another order."""
        return replace(self, unit=self.unit[order])

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
    """A probability sample of a map.

    Attributes:
        kind: simple random, systematic, stratified, one-stage or two-stage cluster.
        seed: Seed that gives the same sample again.
        map_name: File name of the map.
        strata_source: "map classes", "change", "raster ...", "polygons ..." or "none".
        allocation: How units were given to strata, in words.
        grid: The map's grid.
        scheme: The map's legend.
        strata: One or more strata; without stratification one of the whole map.
        class_pixels: Map pixels per class code, of a stratified sample those inside its strata.
        class_area_ha: Map area in ha per class code, of the same pixels.
        row: int32 [unit].
        col: int32 [unit].
        stratum: int64 [unit]; index into ``strata``.
        map_code: uint8 [unit]; the map's class, which interpreters must not see.
        inclusion: float64 [unit]; inclusion probability.
        clusters: Primary units of a cluster design, or the grids of a systematic one, else None.
        min_distance_m: Least distance between units that was enforced.
        notes: What a reader of the figures must know about the draw.
    """

    kind: DesignKind
    seed: int
    map_name: str
    strata_source: str
    allocation: str
    grid: Grid
    scheme: ClassScheme
    strata: tuple[Stratum, ...]
    class_pixels: dict[int, int]
    class_area_ha: dict[int, float]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    stratum: NDArray[np.intp]
    map_code: NDArray[np.uint8]
    inclusion: NDArray[np.float64]
    clusters: PrimaryUnits | None = None
    min_distance_m: float = 0.0
    notes: tuple[str, ...] = ()

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
            "min_distance_m": self.min_distance_m,
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
    """A design from the JSON file that :func:`pipeline.accuracy.sample_files.write_design` wrote.

    Raises:
        ReferenceDataError: not such a file, or one that contradicts itself.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ReferenceDataError("not a sampling design", path=path, expected=f'JSON with format "{FORMAT}"')
        return _design(content)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
        raise ReferenceDataError("sampling design cannot be read", path=path, got=err) from err
    except (KeyError, TypeError, ValueError) as err:
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
        min_distance_m=float(content["min_distance_m"]),
        notes=tuple(content["notes"]),
    )
