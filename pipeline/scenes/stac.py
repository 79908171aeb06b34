"""STAC items and collections, from files or URLs, as Scenes; remote COGs are read by range requests.

Earth Search and Planetary Computer items of Sentinel-2, Landsat Collection 2 Level 2 items, and any item whose assets
say how their DN are scaled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.bands import find_band, is_optical
from pipeline.errors import ProductError, ProductWarning
from pipeline.grid import Grid
from pipeline.raster import open_raster
from pipeline.scenes import quality
from pipeline.scenes.hls import FILL as HLS_FILL
from pipeline.scenes.quality import masks_of
from pipeline.scenes.remote import gdal_path, plain_url
from pipeline.scenes.scene import Scene
from pipeline.scenes.settings import AS_FOUND, SceneOptions, name_of
from pipeline.scenes.sources import REFLECTANCE, BandSource, QualitySource
from pipeline.scenes.stac_assets import AssetBand, asset_bands, choose, mask_assets
from pipeline.scenes.stac_documents import Document, items_of, reachable, shown
from pipeline.scenes.stac_scaling import PLANETARY_COMPUTER, ItemFacts, Scaling, decide, product_metadata, read_facts

if TYPE_CHECKING:
    import pystac

    Address = Callable[[str], str]

# Source: Sentinel-2 Products Specification Document 14.9, special values: 0 no data, 65535 saturated.
S2_SATURATED = 65535.0
# DN without an observation by the agency's sensors, where an item does not say it.
FILLS = {"sentinel-2": 0.0, "landsat": 0.0, "hls": HLS_FILL}


def open_item(
    source: Path | str | Document,
    *, options: SceneOptions = AS_FOUND, bands: Sequence[str] | None = None, mask: Sequence[str] | None = None,
    resolution_m: float | None = None,
) -> Scene:  # fmt: skip
    """The scene of one STAC item; metadata only, unless the item does not say where its pixels lie.

    ``source`` is a file, a folder with an ``item.json``, a URL, the item itself, or a collection of exactly one item.
    Arguments as of :func:`pipeline.scenes.opening.open_scene`; addresses of Planetary Computer are signed, which needs
    no account.

    Raises:
        ProductError: not a STAC item, not reachable, a band missing, or a scaling that cannot be decided.
    """
    items = items_of(source)
    if len(items) != 1:
        got = ", ".join(item.id for item in items[:3]) + (", ..." if len(items) > 3 else "")  # noqa: PLR2004 - enough
        fix = "give one of the items, or open them all with open_items"
        raise ProductError(f"collection of {len(items)} items given as one scene", path=shown(source), got=got, fix=fix)
    (scene,) = open_items(items, options=options, bands=bands, mask=mask, resolution_m=resolution_m)
    return replace(scene, path=shown(source))


def open_items(
    source: Path | str | Document | Sequence[pystac.Item],
    *, options: SceneOptions = AS_FOUND, bands: Sequence[str] | None = None, mask: Sequence[str] | None = None,
    resolution_m: float | None = None,
) -> tuple[Scene, ...]:  # fmt: skip
    """A scene for every item of a collection or item collection; arguments as for ``open_item``."""
    items = items_of(source) if isinstance(source, Path | str | dict) else source
    path = shown(source) if isinstance(source, Path | str | dict) else ""
    reasons = quality.check_mask(mask)
    opened = []
    for item in items:
        facts = read_facts(item, mirror=options.mirror)
        address = _addresses(facts)
        scene = _scene(facts, options, wanted=bands, size=resolution_m, address=address)
        layers, notes = _quality(item, scene.sensor, reasons, scene.band_names, address)
        opened.append(replace(scene, path=path, quality=layers, notes=(*scene.notes, *notes)))
    return tuple(opened)


def _scene(
    facts: ItemFacts, options: SceneOptions, *, wanted: Sequence[str] | None, size: float | None, address: Address
) -> Scene:
    """The scene of an item, without its masks."""
    item, sensor = facts.item, options.sensor or facts.sensor
    chosen = choose(asset_bands(item, sensor=sensor), sensor=sensor)
    names = list(wanted) if wanted is not None else list(chosen)
    missing = [name for name in names if name not in chosen]
    if missing or not names:
        what = f"STAC item has no asset for band {', '.join(missing)}" if missing else "STAC item has no raster bands"
        raise ProductError(what, path=item.id, got=", ".join(chosen) or ", ".join(item.assets))
    metadata = cache(partial(product_metadata, facts))
    scalings = {name: _given(options, chosen[name]) or decide(facts, chosen[name], metadata=metadata) for name in names}
    grids = {name: chosen[name].grid or _header_grid(chosen[name], address) for name in names}
    finest = min(grids.values(), key=lambda grid: grid.pixel_size_m[0])
    grid = finest if size is None else finest.with_pixel_size_m(size)
    when = item.datetime or item.common_metadata.start_datetime
    return Scene(
        id=name_of(item.id, path="STAC item"),
        path=item.id,
        grid=grid,
        bands=tuple(
            _band_source(
                chosen[name], scalings[name], own=grids[name], grid=grid, sensor=sensor, options=options,
                address=address,
            )
            for name in names
        ),
        sensor=sensor,
        level=facts.level,
        baseline=facts.baseline,
        acquired_utc=options.acquired_utc or (when.replace(tzinfo=when.tzinfo or UTC) if when else None),
        notes=_offset_note(facts, scalings),
        mirror=facts.mirror,
    )  # fmt: skip


def _addresses(facts: ItemFacts) -> Address:
    """What GDAL opens for an asset's address; it signs those of Planetary Computer when they are read."""
    of, planetary = facts.item.get_self_href() or "", facts.mirror == PLANETARY_COMPUTER
    return lambda href: gdal_path(reachable(href, of=of), planetary=planetary)


def _given(options: SceneOptions, band: AssetBand) -> Scaling | None:
    if (options.scale is None and options.offset is None) or not is_optical(band.name or ""):
        return None
    scale = options.scale if options.scale is not None else band.scale
    offset = options.offset if options.offset is not None else band.offset
    return Scaling(1.0 if scale is None else scale, offset or 0.0, REFLECTANCE, "config")


def _band_source(
    band: AssetBand, scaling: Scaling, *, own: Grid, grid: Grid, sensor: str, options: SceneOptions, address: Address
) -> BandSource:
    spec = find_band(band.name or "", sensor=sensor) if sensor else None
    fill = next((fill for start, fill in FILLS.items() if sensor.startswith(start)), None)
    nodata = fill if band.nodata is None else band.nodata
    finer = own.pixel_size_m[0] < 0.999 * grid.pixel_size_m[0]
    return BandSource(
        band=band.name or band.key,
        path=address(band.href),
        index=band.index,
        scale=scaling.scale,
        offset=scaling.offset,
        nodata=options.nodata_or(nodata),
        nodata_stated=options.nodata is not None,
        valid_max=S2_SATURATED - 1 if sensor == "sentinel-2" else None,
        resampling="average" if finer else "bilinear",
        gsd_m=spec.gsd_m if spec else band.gsd_m,
        unit=scaling.unit,
        provenance=scaling.provenance,
    )


def _header_grid(band: AssetBand, address: Address) -> Grid:
    """Where an asset's pixels lie, from the file itself: the item does not say."""
    path = address(band.href)
    what = f"asset {band.key} cannot be opened"
    with open_raster(path, error=ProductError, what=what, fix="check that it is still there") as dataset:
        crs, transform, shape = dataset.crs, dataset.transform, dataset.shape
    if crs is None:
        raise ProductError(f"asset {band.key} has no CRS", path=plain_url(path))
    return Grid(crs, transform, *shape).north_up()


def _quality(
    item: pystac.Item, sensor: str, mask: Sequence[str], bands: Sequence[str], address: Address
) -> tuple[tuple[QualitySource, ...], tuple[str, ...]]:
    if not mask:
        return (), ("no mask: asked for",)
    layers = [
        layer
        for role, href in mask_assets(item).items()
        for layer in masks_of(role, address(href), mask, sensor=sensor, bands=bands)
    ]
    if layers:
        return tuple(layers), ()
    note = "no SCL, QA_PIXEL or other quality asset: clouds are not masked"
    warnings.warn(f"{item.id}: {note}", ProductWarning, stacklevel=4)
    return (), (note,)


def _offset_note(facts: ItemFacts, scalings: dict[str, Scaling]) -> tuple[str, ...]:
    if facts.sensor != "sentinel-2":
        return ()
    reasons = tuple(dict.fromkeys(f"offset {s.offset:g}: {s.provenance}" for s in scalings.values()))
    return reasons if len(reasons) == 1 else ("offset differs between bands, see there",)
