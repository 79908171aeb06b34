"""Landsat Collection 2, Level 1 and Level 2, as USGS delivers it (folder or tar, read in place) -> Scene.

TM (Landsat 4-5), ETM+ (7) and OLI/TIRS (8-9) meet under common band names. Level 2 gives surface reflectance and
temperature; Level 1 gives top-of-atmosphere reflectance, corrected for the sun's elevation, and thermal radiance.
Sources: USGS Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619), Landsat 4-7 (LSDS-1618);
Landsat 8-9 Data Users Handbook (LSDS-1574), section 5: reflectance = (M x DN + A) / sin(sun elevation).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pipeline.bands import TABLES, BandSpec, is_optical
from pipeline.documents import finite, parse_json, parse_xml
from pipeline.errors import InputError, ProductError
from pipeline.grid import Grid
from pipeline.raster import open_raster
from pipeline.scenes import quality
from pipeline.scenes.archive import ProductFiles, list_product
from pipeline.scenes.scene import Scene
from pipeline.scenes.settings import name_of
from pipeline.scenes.sources import REFLECTANCE, BandSource, QualitySource, resampling_for

SENSORS = {"TM": "landsat-tm", "ETM": "landsat-etm", "OLI_TIRS": "landsat-oli", "OLI": "landsat-oli"}


@dataclass(frozen=True)
class _Product:
    files: ProductFiles
    mtl: Mtl
    path: str
    folder: str

    def text(self, group: str, key: str) -> str:
        """One entry; ProductError where it is missing."""
        try:
            return self.mtl[group][key]
        except KeyError as err:
            raise ProductError(f"MTL lacks {key} in {group}", path=self.path, fix="download the product again") from err

    def number(self, group: str, key: str) -> float:
        """One entry as a number; ProductError where it is missing or is none."""
        text = self.text(group, key)
        number = finite(text)
        if number is None:
            raise ProductError(f"{key} in {group} of the MTL is not a number", path=self.path, got=repr(text))
        return number


def looks_like_landsat(names: Sequence[str]) -> bool:
    """Whether files (relative paths) are those of a Landsat product: one of them is an MTL."""
    return any(MTL_NAME.fullmatch(PurePosixPath(name).name) for name in names)


def open_landsat(path: Path | str, *, resolution_m: float | None = None, mask: Sequence[str] | None = None) -> Scene:
    """The scene of a Landsat folder, tar or MTL file.

    The MTL file is needed where one folder holds several products; arguments as of
    :func:`pipeline.scenes.opening.open_scene`.

    Raises:
        ProductError: MTL missing, damaged, of Collection 1, of MSS, or contradicting the files; a band missing.
    """
    product = _read_metadata(Path(path))
    sensor = _sensor(product)
    level = product.text("PRODUCT_CONTENTS", "PROCESSING_LEVEL")
    bands = tuple(band for spec in TABLES[sensor] if (band := _band(spec, product, level)) is not None)
    grid = _grid(bands, product)
    if resolution_m is not None:
        resampling = resampling_for(grid.pixel_size[0], resolution_m)
        grid = grid.with_pixel_size(float(resolution_m))
        bands = tuple(replace(band, resampling=resampling) if band.band != "pan" else band for band in bands)
    reasons = quality.check_mask(mask)
    layers, notes = _quality(product, sensor, reasons, bands)
    native = product.number("PROJECTION_ATTRIBUTES", "GRID_CELL_SIZE_REFLECTIVE")
    if resolution_m is None and abs(grid.pixel_size[0] - native) > native / 2:
        notes = (*notes, f"pixels of {grid.pixel_size[0]:.1f} m, though the MTL says {native:g} m: resampled before")
    return Scene(
        id=name_of(product.text("PRODUCT_CONTENTS", "LANDSAT_PRODUCT_ID"), path=path),
        path=str(path),
        grid=grid,
        bands=bands,
        quality=layers,
        sensor=sensor,
        level=level,
        baseline=product.text("PRODUCT_CONTENTS", "COLLECTION_NUMBER"),
        acquired_utc=_acquired(product),
        notes=notes,
    )


def _read_metadata(path: Path) -> _Product:
    files = list_product(path.parent if MTL_NAME.fullmatch(path.name) else path)
    found = [name for name in files.names if MTL_NAME.fullmatch(PurePosixPath(name).name) and name.count("/") <= 1]
    found = [path.name] if MTL_NAME.fullmatch(path.name) else found
    if not found or not set(found) <= set(files.names):
        what = "Landsat product has no MTL file"
        raise ProductError(what, path=path, expected="*_MTL.txt, *_MTL.json or *_MTL.xml", fix="download it again")
    products = sorted({PurePosixPath(name).stem for name in found})
    if len(products) > 1:
        what = f"{len(products)} products given as one scene"
        raise ProductError(what, path=path, got=", ".join(products), fix="give the MTL file of one of them")
    name = min(found, key=lambda item: ("txt", "json", "xml").index(item.rsplit(".", 1)[-1].lower()))
    mtl = parse_mtl(files.read(name), path=files.gdal(name))
    folder = str(PurePosixPath(name).parent)
    return _Product(files, mtl, files.gdal(name), "" if folder == "." else f"{folder}/")


def _sensor(product: _Product) -> str:
    name = product.text("IMAGE_ATTRIBUTES", "SENSOR_ID")
    if name not in SENSORS:
        what = f"no band table for {product.text('IMAGE_ATTRIBUTES', 'SPACECRAFT_ID')} {name}"
        raise ProductError(what, path=product.path, expected="TM, ETM or OLI_TIRS", fix="choose a later Landsat")
    return SENSORS[name]


def _acquired(product: _Product) -> datetime:
    date, time = (product.text("IMAGE_ATTRIBUTES", key) for key in ("DATE_ACQUIRED", "SCENE_CENTER_TIME"))
    try:
        # Seven decimals of a second are one more than datetime takes.
        return datetime.fromisoformat(f"{date}T{time.rstrip('Z')[:15]}").replace(tzinfo=UTC)
    except ValueError as err:
        raise ProductError("time of acquisition in the MTL", path=product.path, got=f"{date} {time}") from err


def _band(spec: BandSpec, product: _Product, level: str) -> BandSource | None:
    """The band as this product has it; None where its level has no such band."""
    number = spec.key.removeprefix("B")
    surface = level.startswith("L2")
    if surface and not is_optical(spec.name):
        number = f"ST_{spec.key}"
    elif spec.name == "lwir11" and "FILE_NAME_BAND_6_VCID_1" in product.mtl["PRODUCT_CONTENTS"]:
        number = "6_VCID_1"
    name = product.mtl["PRODUCT_CONTENTS"].get(f"FILE_NAME_BAND_{number}")
    if name is None:
        return None
    file = f"{product.folder}{name}"
    if file not in product.files.names:
        what = f"band {spec.key} ({spec.name}) is missing"
        raise ProductError(what, path=product.files.path, expected=name, fix="download the product again")
    scale, offset, unit, source = _scaling(spec, number, product, surface=surface)
    return BandSource(
        band=spec.name,
        path=product.files.gdal(file),
        scale=scale,
        offset=offset,
        nodata=0,
        resampling="average" if spec.name == "pan" else "bilinear",
        gsd_m=spec.gsd_m,
        unit=unit,
        provenance=f"{PurePosixPath(product.path).name}: {source}",
    )


def _scaling(spec: BandSpec, number: str, product: _Product, *, surface: bool) -> tuple[float, float, str, str]:
    """(scale, offset, unit, where they were read) of a band."""
    if surface:
        quantity, unit = ("REFLECTANCE", REFLECTANCE) if is_optical(spec.name) else ("TEMPERATURE", "kelvin")
        group = f"LEVEL2_SURFACE_{quantity}_PARAMETERS"
    else:
        quantity, unit = ("REFLECTANCE", REFLECTANCE) if is_optical(spec.name) else ("RADIANCE", "W/(m2 sr um)")
        group = "LEVEL1_RADIOMETRIC_RESCALING"
    scale = product.number(group, f"{quantity}_MULT_BAND_{number}")
    offset = product.number(group, f"{quantity}_ADD_BAND_{number}")
    source = f"{quantity}_MULT_BAND_{number} {scale:g}, {quantity}_ADD_BAND_{number} {offset:g}"
    if surface or unit != REFLECTANCE:
        return scale, offset, unit, source
    elevation = product.number("IMAGE_ATTRIBUTES", "SUN_ELEVATION")
    if elevation <= 0:
        what = "sun below the horizon: a scene taken at night has no reflectance"
        raise ProductError(what, path=product.path, got=f"SUN_ELEVATION {elevation:g}")
    sine = math.sin(math.radians(elevation))
    return scale / sine, offset / sine, unit, f"{source}, over sin(SUN_ELEVATION {elevation:g})"


def _grid(bands: Sequence[BandSource], product: _Product) -> Grid:
    """The grid of the first reflective band but pan; every band must cover what the MTL says. Opens headers only."""
    if not bands:
        raise ProductError("product lists no bands", path=product.path)
    grids = {source.band: _header(source, product) for source in bands}
    first = next((band for band in grids if is_optical(band) and band != "pan"), bands[0].band)
    for band, grid in grids.items():
        _check_place(band, grid, grids[first], product)
    return grids[first]


def _header(source: BandSource, product: _Product) -> Grid:
    what, fix = f"image of band {source.band}", f"download {product.files.path.name} again"
    with open_raster(source.path, error=ProductError, what=f"{what} cannot be opened", fix=fix) as image:
        if image.crs is None:
            raise ProductError(f"{what} has no CRS", path=source.path, fix=fix)
        return Grid.of(image)


def _check_place(band: str, grid: Grid, first: Grid, product: _Product) -> None:
    """Refuse an image in another CRS, or on other ground than the MTL's corners (pixel centres; Source: LSDS-1822)."""
    cell = product.number("PROJECTION_ATTRIBUTES", "GRID_CELL_SIZE_REFLECTIVE")
    corners = [
        product.number("PROJECTION_ATTRIBUTES", f"CORNER_{corner}_PROJECTION_{axis}_PRODUCT")
        for corner, axis in (("LL", "X"), ("LL", "Y"), ("UR", "X"), ("UR", "Y"))
    ]
    slack = cell + max(grid.pixel_size)
    near = all(abs(a - b) <= slack for a, b in zip(grid.bounds, corners, strict=True))
    if not near or grid.crs != first.crs:
        what = f"MTL contradicts the image of band {band}"
        got = f"{grid.crs} {tuple(round(value) for value in grid.bounds)}"
        stated = f"{first.crs} {tuple(round(value) for value in corners)}"
        raise ProductError(what, path=product.path, got=got, expected=stated, fix="download the product again")


def _quality(
    product: _Product, sensor: str, reasons: tuple[str, ...], bands: Sequence[BandSource]
) -> tuple[tuple[QualitySource, ...], tuple[str, ...]]:
    if not reasons:
        return (), ("no quality mask applied: asked for none",)
    layers = [quality.qa_pixel(_quality_file(product, "PIXEL"), reasons)]
    if "saturated" in reasons:
        path = _quality_file(product, "RADIOMETRIC_SATURATION")
        layers.append(quality.qa_radsat(path, sensor=sensor, bands=[source.band for source in bands]))
    return tuple(layers), ()


def _quality_file(product: _Product, layer: str) -> str:
    name = product.mtl["PRODUCT_CONTENTS"].get(f"FILE_NAME_QUALITY_L1_{layer}", "")
    if f"{product.folder}{name}" not in product.files.names:
        what = f"quality layer {layer} is missing"
        fix = "download the product again, or open it with an empty mask"
        raise ProductError(what, path=product.files.path, expected=name or "an entry in the MTL", fix=fix)
    return product.files.gdal(f"{product.folder}{name}")


ROOT = "LANDSAT_METADATA_FILE"
COLLECTION_1_ROOT = "L1_METADATA_FILE"
MTL_NAME = re.compile(r".+_MTL\.(txt|json|xml)", re.IGNORECASE)
_LINE = re.compile(r'\s*(\w+)\s*=\s*(?:"([^"]*)"|(.*?))\s*')

Mtl = dict[str, dict[str, str]]
"""Group -> key -> text, as written, without quotes. Keys repeat between groups, so the group belongs to the key."""


def parse_mtl(data: bytes, *, path: str) -> Mtl:
    """The groups of an MTL file; the suffix of ``path`` says how it is spelt.

    Raises:
        ProductError: not an MTL, cut off, of Collection 1, or without the groups every product has.
    """
    suffix = path.rsplit(".", 1)[-1].lower()
    try:
        text = data.decode("utf-8")
        root, groups = {"txt": _from_txt, "json": _from_json, "xml": _from_xml}[suffix](text)
    except (KeyError, ValueError, TypeError, AttributeError, StopIteration, InputError) as err:
        what = "not a whole MTL file"
        raise ProductError(what, path=path, got=err or type(err).__name__, fix="download the product again") from err
    if root == COLLECTION_1_ROOT or groups.get("PRODUCT_CONTENTS", {}).get("COLLECTION_NUMBER") == "01":
        what = "product is of Landsat Collection 1, whose calibration and quality bits differ"
        raise ProductError(what, path=path, expected="Collection 2", fix="order the same scene from Collection 2")
    if root != ROOT or "PRODUCT_CONTENTS" not in groups:
        what = "not the MTL of a Landsat Collection 2 product"
        raise ProductError(what, path=path, got=f"group {root}", expected=ROOT)
    return groups


def _from_txt(text: str) -> tuple[str, Mtl]:
    root, group = "", ""
    groups: Mtl = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        key, value = match[1], match[2] if match[2] is not None else match[3]
        if key == "GROUP" and not root:
            root = value
        elif key == "GROUP":
            group = value
            groups[group] = {}
        elif key == "END_GROUP" and value == root:
            return root, groups
        elif key != "END_GROUP":
            groups[group][key] = value
    raise ValueError(f"it ends before END_GROUP = {root or ROOT}")


def _from_json(text: str) -> tuple[str, Mtl]:
    root, content = next(iter(parse_json(text).items()))
    groups = {group: {key: str(value) for key, value in items.items()} for group, items in content.items()}
    return str(root), groups


def _from_xml(text: str) -> tuple[str, Mtl]:
    root = parse_xml(text)
    return root.tag, {group.tag: {item.tag: (item.text or "").strip() for item in group} for group in root}
