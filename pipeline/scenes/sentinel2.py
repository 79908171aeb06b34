"""Sentinel-2 L1C and L2A as ESA delivers them (SAFE folder or zip, any naming) -> Scene.

Every number comes from the product's own XML. Bands of 10, 20 and 60 m meet on one grid, each from the file nearest to
its native resolution; nothing but metadata and image headers is read here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.io import DatasetReader, MemoryFile

from pipeline.bands import SENTINEL2, BandSpec
from pipeline.errors import ProductError, ProductWarning
from pipeline.grid import Grid
from pipeline.raster import as_error
from pipeline.scenes import quality
from pipeline.scenes.archive import ProductFiles, list_product, zip_head
from pipeline.scenes.safe_metadata import SafeMetadata, TileMetadata, parse_product, parse_tile
from pipeline.scenes.scene import Scene
from pipeline.scenes.settings import name_of
from pipeline.scenes.sources import REFLECTANCE, BandSource, QualitySource, resampling_for

FINEST_M = 10
IMAGE_SUFFIXES = frozenset({".jp2", ".tif", ".tiff"})
# MTD_MSIL1C.xml and MTD_MSIL2A.xml since December 2016; S2A_OPER_MTD_SAFL1C_... and S2A_USER_MTD_SAFL2A_... before.
PRODUCT_XML = re.compile(r"(MTD_MSIL(1C|2A)|S2[A-D]_(OPER|USER)_MTD_SAFL(1C|2A)_.+)\.xml", re.IGNORECASE)
_TILE_XML = re.compile(r"(MTD_TL|S2[A-D]_(OPER|USER)_MTD_L(1C|2A)_TL_.+)\.xml", re.IGNORECASE)
_IMAGE = re.compile(r"(?P<stem>.*)_(?P<key>B\d{2}|B8A|SCL)(_(?P<metres>[126]0)m)?")


@dataclass(frozen=True)
class _Product:
    files: ProductFiles
    meta: SafeMetadata
    tile: TileMetadata
    granule: str


def looks_like_safe(names: Sequence[str]) -> bool:
    """Whether files (relative paths) are those of a SAFE, be it an incomplete one."""
    tops = [PurePosixPath(name).parts[:3] for name in names]
    return any(
        "GRANULE" in parts or parts[-1].lower() == "manifest.safe" or PRODUCT_XML.fullmatch(parts[-1])
        for parts in tops
        if parts
    )


def open_safe(path: Path | str, *, resolution_m: float | None = None, mask: Sequence[str] | None = None) -> Scene:
    """The scene of a SAFE folder, a SAFE zip (read in place), or one granule folder of an old SAFE of many tiles.

    Arguments as of :func:`pipeline.scenes.opening.open_scene`.

    Raises:
        ProductError: metadata missing, damaged or contradicting the files; a band or mask missing; several tiles.
    """
    path = Path(path)
    granule = path.name if path.parent.name == "GRANULE" else None
    product = _read_metadata(list_product(path.parent.parent if granule else path), granule)
    size = float(resolution_m or FINEST_M)
    grid = _grid(product.tile, size, str(path))
    images = _images(product)
    # L2A has no B10: it sees no ground, and atmospheric correction uses it up.
    specs = [spec for spec in SENTINEL2 if product.meta.level == "L1C" or spec.key != "B10"]
    bands = tuple(_band(spec, product, images, size) for spec in specs)
    _check_headers(bands, product, path)
    reasons = quality.check_mask(mask)
    layers, notes = _quality(product, images, reasons)
    return Scene(
        id=name_of(product.meta.product if not granule else f"{product.meta.product}_{product.tile.tile}", path=path),
        path=str(path),
        grid=grid,
        bands=bands,
        quality=layers,
        sensor="sentinel-2",
        level=product.meta.level,
        baseline=product.meta.baseline,
        acquired_utc=product.meta.acquired_utc,
        notes=notes,
    )


def product_around(path: Path) -> Path | None:
    """The SAFE, or its granule, that an image or a folder of images lies in; None where there is no XML around it."""
    parts = [path, *path.parents][:7]
    images = next((folder for folder in parts if folder.name == "IMG_DATA"), None)
    if images is None or not path.exists():
        return None
    safe = images.parent.parent.parent
    if not any(PRODUCT_XML.fullmatch(file.name) for file in safe.glob("*.xml")):
        return None
    return images.parent if len([child for child in images.parent.parent.iterdir() if child.is_dir()]) > 1 else safe


def open_part(path: Path, *, resolution_m: float | None = None, mask: Sequence[str] | None = None) -> Scene:
    """The bands of a SAFE that an image (a JP2) or a folder of images (IMG_DATA, R10m) holds, read as the XML says.

    Raises:
        ProductError: as :func:`open_safe`; or a file that is none of the product's bands.
    """
    around = product_around(path)
    named = re.search(r"(?:_|R)([126]0)m$", path.stem)
    size = resolution_m or (float(named[1]) if named else None)
    scene = open_safe(around or path, resolution_m=size, mask=mask)
    image = _IMAGE.fullmatch(path.stem) if path.is_file() else None
    keys = {spec.name: spec.key for spec in SENTINEL2}
    inside = [
        band.band
        for band in scene.bands
        if (image is not None and keys[band.band] == image["key"])
        or (image is None and path.is_dir() and Path(band.path).resolve().is_relative_to(path.resolve()))
    ]
    if not inside:
        expected = "an image of a band, IMG_DATA, or one of its folders"
        raise ProductError("no band of the product", path=path, expected=expected)
    chosen = scene.select(inside)
    if size is None:
        size = min(band.gsd_m or FINEST_M for band in chosen.bands)
        chosen = open_safe(around or path, resolution_m=size, mask=mask).select(inside)
    return replace(chosen, path=str(path), id=scene.id if path.is_dir() else path.stem)


def _read_metadata(files: ProductFiles, granule: str | None) -> _Product:
    # At the top, or one down: a zip, and a folder made by unpacking it, holds X.SAFE/MTD_MSIL2A.xml.
    tops = [name for name in files.names if name.count("/") <= 1]
    product_xml = [name for name in tops if PRODUCT_XML.fullmatch(PurePosixPath(name).name)]
    if not product_xml:
        what = "SAFE has no product metadata"
        raise ProductError(what, path=files.path, expected="MTD_MSIL1C.xml or MTD_MSIL2A.xml", fix="download it again")
    if len(product_xml) > 1:
        what = f"{len(product_xml)} products given as one scene"
        raise ProductError(what, path=files.path, got=", ".join(product_xml), fix="give them one by one")
    meta = parse_product(files.read(product_xml[0]), path=files.gdal(product_xml[0]))
    tile_xml = _tile_xml(files, granule, str(PurePosixPath(product_xml[0]).parent))
    tile = parse_tile(files.read(tile_xml), path=files.gdal(tile_xml))
    if meta.tile and tile.tile and granule is None and meta.tile != tile.tile:
        what = "metadata contradicts the files: product and granule are of different tiles"
        raise ProductError(what, path=files.path, got=f"{meta.tile} and {tile.tile}", fix="download it again")
    return _Product(files, meta, tile, str(PurePosixPath(tile_xml).parent))


def _tile_xml(files: ProductFiles, granule: str | None, top: str) -> str:
    prefix = "GRANULE/" if top == "." else f"{top}/GRANULE/"
    names = [n for n in files.names if n.startswith(prefix) and _TILE_XML.fullmatch(PurePosixPath(n).name)]
    found = [name for name in names if granule in {None, PurePosixPath(name).parent.name}]
    if not found:
        what = "SAFE has no tile metadata"
        raise ProductError(what, path=files.path, expected="GRANULE/*/MTD_TL.xml", fix="download it again")
    if len(found) > 1:
        what = f"{len(found)} tiles given as one scene"
        folders = ", ".join(PurePosixPath(name).parent.name for name in found)
        raise ProductError(what, path=files.path, got=folders, fix="unpack it and give one folder below GRANULE")
    return found[0]


def _grid(tile: TileMetadata, size: float, path: str) -> Grid:
    try:
        crs = CRS.from_user_input(tile.crs)
    except CRSError as err:
        raise ProductError("tile metadata names no CRS", path=path, got=tile.crs) from err
    finest, shape = min(tile.shapes.items())
    left, top = tile.upper_left
    return Grid(crs, Affine(finest, 0.0, left, 0.0, -finest, top), *shape).with_pixel_size(size)


def _images(product: _Product) -> dict[str, dict[int, str]]:
    """Files that are there, of those that the metadata lists: band key -> resolution in metres -> name."""
    present = {
        PurePosixPath(name).stem: name
        for name in product.files.names
        if name.startswith(f"{product.granule}/") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    }
    native = {spec.key: int(spec.gsd_m) for spec in SENTINEL2} | {"SCL": 20}
    images: dict[str, dict[int, str]] = {}
    for listed in product.meta.images:
        match = _IMAGE.fullmatch(PurePosixPath(listed).name)
        if match is not None and PurePosixPath(listed).name in present:
            metres = int(match["metres"] or native[match["key"]])
            images.setdefault(match["key"], {})[metres] = present[PurePosixPath(listed).name]
    if not images and any(_IMAGE.fullmatch(stem) for stem in present):
        what = "metadata contradicts the files: none of the images it lists is there, but others are"
        got = f"{min(stem for stem in present if _IMAGE.fullmatch(stem))}, ..."
        expected = PurePosixPath(product.meta.images[0]).name if product.meta.images else "a list of images"
        raise ProductError(what, path=product.files.path, got=got, expected=expected)
    return images


def _band(spec: BandSpec, product: _Product, images: Mapping[str, Mapping[int, str]], size: float) -> BandSource:
    files = images.get(spec.key)
    if not files:
        what = f"band {spec.key} ({spec.name}) is missing"
        raise ProductError(what, path=product.files.path, fix="download the product again")
    # On a coarser grid the agency's own file of that resolution beats averaging the native one here.
    native = min(files, key=lambda res: (abs(res - spec.gsd_m), res))
    metres = int(size) if size > spec.gsd_m and size in files else native
    meta = product.meta
    return BandSource(
        band=spec.name,
        path=product.files.gdal(files[metres]),
        scale=1.0 / meta.quantification,
        offset=meta.offsets.get(spec.key, 0.0) / meta.quantification,
        nodata=meta.nodata,
        valid_max=None if meta.saturated is None else meta.saturated - 1,
        resampling=resampling_for(metres, size),
        gsd_m=spec.gsd_m,
        unit=REFLECTANCE,
        provenance=meta.source,
    )


def _check_headers(bands: Sequence[BandSource], product: _Product, path: Path) -> None:
    """Refuse images that lie elsewhere than the tile's metadata says; opens headers, reads no pixel."""
    left, top = product.tile.upper_left
    crs = CRS.from_user_input(product.tile.crs)
    for source in bands:
        what, fix = f"image of band {source.band} cannot be opened", "download the product again"
        with as_error(ProductError, what, path=source.path, fix=fix), _open_header(source.path) as image:
            found = (image.crs, image.transform.c, image.transform.f)
            shape, metres = image.shape, round(image.transform.a)
        expected = product.tile.shapes.get(metres)
        if found != (crs, left, top) or shape != expected:
            what = f"metadata contradicts the image of band {source.band}"
            got = f"{found[0]} at {found[1]:.0f}, {found[2]:.0f}, {shape[0]} x {shape[1]} pixels of {metres} m"
            stated = f"{crs} at {left:.0f}, {top:.0f}, {expected} pixels"
            raise ProductError(what, path=path, got=got, expected=stated, fix=fix)


@contextmanager
def _open_header(path: str) -> Iterator[DatasetReader]:
    head = zip_head(path)
    with ExitStack() as stack:
        if head is None:
            yield stack.enter_context(rasterio.open(path))
        else:
            memory = stack.enter_context(MemoryFile(head, ext=".jp2"))
            yield stack.enter_context(memory.open())


def _quality(
    product: _Product, images: Mapping[str, Mapping[int, str]], reasons: tuple[str, ...]
) -> tuple[tuple[QualitySource, ...], tuple[str, ...]]:
    if not reasons:
        return (), ("no quality mask applied: asked for none",)
    if product.meta.level == "L2A":
        if "SCL" not in images:
            what = "scene classification (SCL) is missing"
            raise ProductError(what, path=product.files.path, fix="download it again, or open it with an empty mask")
        return (quality.scl(product.files.gdal(min(images["SCL"].items())[1]), reasons),), ()
    return _l1c_quality(product, reasons)


def _l1c_quality(product: _Product, reasons: tuple[str, ...]) -> tuple[tuple[QualitySource, ...], tuple[str, ...]]:
    within = f"{product.granule}/*"
    raster = product.files.find(f"{within}MSK_CLASSI_B00.jp2")
    vector = product.files.find(f"{within}MSK_CLOUDS_*B00*.gml")
    if raster:
        # One band of 0 and 1 per reason, from baseline 04.00 on.
        path = product.files.gdal(raster[0])
        layers = quality.by_bands("MSK_CLASSI", path, reasons, numbers=quality.CLASSI_BANDS)
    elif vector:
        layers = quality.cloud_polygons(product.files.gdal(vector[0]), reasons)
    else:
        what = f"{product.files.path}: clouds are not masked, as the product holds neither MSK_CLASSI nor MSK_CLOUDS"
        warnings.warn(what, ProductWarning, stacklevel=4)
        return (), ("clouds not masked: the product holds no cloud mask",)
    without = sorted({"shadow", "dilated"} & set(reasons))
    return layers, (f"L1C has no layer for: {', '.join(without)}",) if without else ()
