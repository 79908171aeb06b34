"""The mosaic of a run's maps, for the command that maps scenes and for the stage of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.files import check_target, hash_of
from pipeline.maps.geotiff import write_class_map
from pipeline.workflow.scene_maps import WORK, MapRecord, stamp_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.scenes.scene import Source
    from pipeline.workflow.scene_maps import MapFiles, MapOrder

MOSAIC, MOSAIC_RECORD = "mosaic_lc.tif", "mosaic.json"


def write_mosaic(maps: Sequence[MapFiles], sources: Sequence[Source], order: MapOrder) -> Path | None:
    """``mosaic_lc.tif`` of several maps where the settings ask for one; None otherwise.

    Raises:
        GridError: maps in several CRSs and none chosen.
        ConfigError: a rule that needs dates or confidence that a map lacks.
    """
    settings, folder = order.settings, order.folder
    if settings.mosaic is None or len(maps) < 2:  # noqa: PLR2004 - one map is no mosaic
        return None
    from rasterio.crs import CRS

    from pipeline.inference.mosaic import MapFile, join_maps, target_grid

    target = folder / MOSAIC
    rule = {"rule": settings.mosaic, "crs": settings.mosaic_crs, "pixel": settings.mosaic_pixel}
    record = MapRecord(folder / WORK / MOSAIC_RECORD, hash_of([rule, [item.class_map.name for item in maps]]))
    stamps, found = [stamp_of(item.class_map) for item in maps], record.result()
    if found is not None and found["maps"] == stamps:
        return target
    overwrite = order.overwrite or record.is_own()
    files = [
        MapFile(item.class_map, item.confidence, source.acquired_utc)
        for item, source in zip(maps, sources, strict=True)
    ]
    grid = target_grid(
        files,
        crs=CRS.from_user_input(settings.mosaic_crs) if settings.mosaic_crs else None,
        pixel_size=settings.mosaic_pixel,
    )
    check_target(target, overwrite=overwrite)
    tags = {"LANDCOVER_MOSAIC": {"rule": settings.mosaic, "maps": [item.class_map.name for item in maps]}}
    joined = join_maps(files, grid=grid, rule=settings.mosaic, out=folder / WORK)
    try:
        check_target(target, overwrite=overwrite)  # again: once the record says "writing", what is there is our own
        record.begin()
        write_class_map(target, joined.codes, grid=grid, scheme=maps[0].counts.scheme, tags=tags, overwrite=overwrite)
    finally:
        joined.remove()
    record.end([target], {"maps": stamps})
    return target
