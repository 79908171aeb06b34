"""What was mapped: the files of each scene, their mosaic, and the summary that ``predict`` ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, counted
from pipeline.files import check_target, hash_of
from pipeline.maps.geotiff import write_class_map
from pipeline.maps.pixels import ClassCounts
from pipeline.workflow.map_record import WORK, MapRecord, stamp_of
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rasterio.crs import CRS

    from pipeline.config import MapSection
    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme
    from pipeline.scenes.scene import Source

# Exit status where some scenes of several could not be mapped.
SOME_FAILED = 3
SCENES_SHOWN = 6
MOSAIC, MOSAIC_RECORD = "mosaic_lc.tif", "mosaic.json"
PATHS = (
    "class_map", "confidence", "probabilities", "entropy", "margin", "aoa", "polygons", "quicklook",
)  # fmt: skip


@dataclass(frozen=True)
class MapFiles:
    """What was written of one scene; ``unchanged`` where the same command had written it before."""

    name: str
    grid: Grid
    class_map: Path
    counts: ClassCounts
    figures: dict[str, float]
    plan: dict[str, Any]
    confidence: Path | None = None
    probabilities: Path | None = None
    entropy: Path | None = None
    margin: Path | None = None
    aoa: Path | None = None
    polygons: Path | None = None
    quicklook: Path | None = None
    seam: dict[str, float] | None = None
    unchanged: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, the map first."""
        layers = (self.confidence, self.probabilities, self.entropy, self.margin, self.aoa, self.polygons)
        return (self.class_map, *(path for path in (self.quicklook, *layers) if path is not None))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without grid and legend, which the scene and the model know; files by their names."""
        paths = {name: path.name for name in PATHS if (path := getattr(self, name)) is not None}
        counts = {"pixels": self.counts.pixels, "area_ha": self.counts.area_ha, "nodata": self.counts.nodata_pixels}
        return {"paths": paths, "counts": counts, "figures": self.figures, "plan": self.plan, "seam": self.seam}

    @classmethod
    def from_json(cls, items: dict[str, Any], *, name: str, grid: Grid, scheme: ClassScheme, folder: Path) -> MapFiles:
        """The inverse of :meth:`to_json`."""
        found = items["counts"]
        counts = ClassCounts(scheme, tuple(found["pixels"]), tuple(found["area_ha"]), found["nodata"])
        paths: dict[str, Any] = {key: folder / value for key, value in items["paths"].items()}
        return cls(
            name=name,
            grid=grid,
            counts=counts,
            figures=items["figures"],
            plan=items["plan"],
            seam=items["seam"],
            unchanged=True,
            **paths,
        )


def write_mosaic(
    maps: Sequence[MapFiles], sources: Sequence[Source], *, folder: Path, section: MapSection, overwrite: bool
) -> Path | None:
    """``mosaic_lc.tif`` of several maps where the settings ask for one; None otherwise.

    Raises:
        GridError: maps in several CRSs and none chosen.
        ConfigError: a rule that needs dates or confidence that a map lacks.
    """
    if section.mosaic is None or len(maps) < 2:  # noqa: PLR2004 - one map is no mosaic
        return None
    from pipeline.inference.mosaic import MapFile, join_maps, target_grid

    target = folder / MOSAIC
    rule = {"rule": section.mosaic, "crs": section.mosaic_crs, "pixel": section.mosaic_pixel}
    record = MapRecord(folder / WORK / MOSAIC_RECORD, hash_of([rule, [item.class_map.name for item in maps]]))
    stamps, found = [stamp_of(item.class_map) for item in maps], record.result()
    if found is not None and found["maps"] == stamps:
        return target
    overwrite = overwrite or record.is_own()
    files = [
        MapFile(item.class_map, item.confidence, source.acquired_utc)
        for item, source in zip(maps, sources, strict=True)
    ]
    grid = target_grid(files, crs=_crs(section.mosaic_crs), pixel_size=section.mosaic_pixel)
    check_target(target, overwrite=overwrite)
    tags = {"LANDCOVER_MOSAIC": {"rule": section.mosaic, "maps": [item.class_map.name for item in maps]}}
    joined = join_maps(files, grid=grid, rule=section.mosaic, out=folder / WORK)
    try:
        check_target(target, overwrite=overwrite)  # again: once the record says "writing", what is there is our own
        record.begin()
        write_class_map(target, joined.codes, grid=grid, scheme=maps[0].counts.scheme, tags=tags, overwrite=overwrite)
    finally:
        joined.remove()
    record.end([target], {"maps": stamps})
    return target


def _crs(text: str | None) -> CRS | None:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_user_input(text) if text else None
    except CRSError as err:
        raise ConfigError("CRS of the mosaic", got=repr(text), expected="a code such as EPSG:3035") from err


def mapping_outcome(maps: Sequence[MapFiles], *, mosaic: Path | None, failed: Sequence[str] = ()) -> Outcome:
    """The summary of ``predict``: areas, rate, what was decided, what was written; scenes that failed at the end."""
    names = maps[0].counts.scheme.names if maps else ()
    areas = tuple((name, *(f"{item.counts.area_ha[i]:,.1f}" for item in maps)) for i, name in enumerate(names))
    rates = tuple(
        (
            item.name,
            f"{item.figures['mpx']:.2f}",
            f"{item.figures['mpx_per_s']:.2f}",
            item.plan["engine"],
            item.plan["dtype"],
        )
        for item in maps
        if not item.unchanged
    )
    seams = {item.name: item.seam for item in maps if item.seam}
    tables = [Table("mapping", ("scene", "Mpx", "Mpx/s", "engine", "type"), rates)] if rates else []
    # A column per scene is for some; of many scenes the areas are in the JSON and in the maps.
    if 0 < len(maps) <= SCENES_SHOWN:
        tables.insert(0, Table("mapped area (ha)", ("class", *(item.name for item in maps)), areas))
    if seams:
        heads = ("scene", *next(iter(seams.values())))
        rows = tuple((name, *(f"{value:.4g}" for value in figures.values())) for name, figures in seams.items())
        tables.append(Table("seams: disagreement along tile borders against the interior", heads, rows))
    return Outcome(
        summary=_summary(mapped=len(rates), unchanged=len(maps) - len(rates), failed=len(failed)),
        written=(*(path for item in maps for path in item.files), *([mosaic] if mosaic else [])),
        hint="open the _lc.tif in QGIS: names and colours come with it" if maps else "",
        tables=tuple(tables),
        failed=tuple(failed),
        status=SOME_FAILED,
        data={
            "maps": [
                {
                    "scene": item.name,
                    "files": [str(path) for path in item.files],
                    "area_ha": dict(zip(names, item.counts.area_ha, strict=True)),
                    "figures": item.figures,
                    "plan": item.plan,
                    "seam": item.seam,
                }
                for item in maps
            ]
        },
    )


def _summary(*, mapped: int, unchanged: int, failed: int) -> str:
    """How many scenes of each kind, without those that there are none of."""
    counts = (f"{counted(mapped, 'scene')} mapped", mapped), (f"{counted(unchanged, 'scene')} unchanged", unchanged)
    texts = [text for text, count in counts if count] or [counts[0][0]]
    return ", ".join([*texts, *([f"{failed} failed"] if failed else [])])
