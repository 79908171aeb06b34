"""Harmonized Landsat and Sentinel-2 (S30 and L30, version 2.0) as NASA delivers them: a folder of one COG per band.

Bands meet under their common names, so that one model maps both. Source: HLS Product User Guide, version 2.0, sections
6.2 (file names), 6.3 to 6.6 (bands, scale factors, fill value) and table 9 (Fmask).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pipeline.bands import TABLES, BandSpec, is_optical
from pipeline.errors import ProductError
from pipeline.grid import Grid
from pipeline.raster import open_raster
from pipeline.scenes import quality
from pipeline.scenes.archive import ProductFiles, list_product
from pipeline.scenes.quality import masks_of
from pipeline.scenes.scene import Scene
from pipeline.scenes.sources import REFLECTANCE, BandSource, resampling_for

SCALE, THERMAL_SCALE, FILL = 1e-4, 0.01, -9999.0
LEVEL = "HLS"
_FILE = re.compile(
    r"(?P<product>HLS\.(?P<kind>[SL]30)\.T\d{2}[A-Z]{3}\.(?P<time>\d{7}T\d{6})\.v(?P<version>\d\.\d))\.(?P<layer>\w+)\.tif",
    re.IGNORECASE,
)


def looks_like_hls(names: Sequence[str]) -> bool:
    """Whether files (relative paths) are those of an HLS product."""
    return any(_FILE.fullmatch(PurePosixPath(name).name) for name in names)


def open_hls(path: Path | str, *, resolution_m: float | None = None, mask: Sequence[str] | None = None) -> Scene:
    """The scene of a folder or archive of HLS files; angles are left out.

    Arguments as of :func:`pipeline.scenes.opening.open_scene`.

    Raises:
        ProductError: no band, no Fmask though a reason needs it, an image that cannot be opened, or several products.
    """
    files = list_product(Path(path))
    by_name = {PurePosixPath(name).name: name for name in files.names}
    found = [match for name in by_name if (match := _FILE.fullmatch(name))]
    products = sorted({match["product"] for match in found})
    if len(products) > 1:
        raise ProductError(f"{len(products)} products given as one scene", path=path, got=", ".join(products))
    layers = {match["layer"].upper(): by_name[match[0]] for match in found}
    sensor = f"hls-{found[0]['kind'].lower()}"
    specs = [spec for spec in TABLES[sensor] if spec.key in layers]
    reasons = quality.check_mask(mask)
    # Without an observation bands have their own fill value.
    needed = [reason for reason in reasons if reason in quality.HLS_FMASK_BITS]
    if not specs or (needed and "FMASK" not in layers):
        what = "HLS product has no band" if not specs else "HLS product has no Fmask"
        fix = "download it again" + ("" if not specs else f", or open it with a mask without {', '.join(needed)}")
        raise ProductError(what, path=path, got=", ".join(layers), fix=fix)
    first, fix = files.gdal(layers[specs[0].key]), "download it again"
    with open_raster(first, error=ProductError, what="image cannot be opened", fix=fix) as image:
        own = Grid.of(image)
    grid = own if resolution_m is None else own.with_pixel_size(float(resolution_m))
    bands = tuple(_band(spec, files, layers, own=own, grid=grid) for spec in specs)
    names = [band.band for band in bands]
    fmask = files.gdal(layers["FMASK"]) if reasons and "FMASK" in layers else None
    return Scene(
        id=products[0],
        path=str(path),
        grid=grid,
        bands=bands,
        quality=() if fmask is None else masks_of("fmask", fmask, reasons, sensor=sensor, bands=names),
        sensor=sensor,
        level=LEVEL,
        baseline=found[0]["version"],
        acquired_utc=datetime.strptime(found[0]["time"], "%Y%jT%H%M%S").replace(tzinfo=UTC),
        notes=() if reasons else ("no quality mask applied: asked for none",),
    )


def _band(spec: BandSpec, files: ProductFiles, layers: Mapping[str, str], *, own: Grid, grid: Grid) -> BandSource:
    optical = is_optical(spec.name)
    return BandSource(
        band=spec.name,
        path=files.gdal(layers[spec.key]),
        scale=SCALE if optical else THERMAL_SCALE,
        nodata=FILL,
        resampling=resampling_for(own.pixel_size[0], grid.pixel_size[0]),
        gsd_m=spec.gsd_m,
        unit=REFLECTANCE if optical else "degree Celsius",
        provenance="HLS v2.0 User Guide: scale 0.0001" if optical else "HLS v2.0 User Guide: scale 0.01",
    )
