"""What a user points at -> Scene: the one door for files, folders, products and STAC items; lists of scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import rasterio
from rasterio.errors import RasterioError

from pipeline.bands import is_optical
from pipeline.errors import InputError, ProductError, SceneError
from pipeline.files import write_text
from pipeline.scenes.archive import ARCHIVE_SUFFIXES, list_product
from pipeline.scenes.describe import is_embedding
from pipeline.scenes.eopf import looks_like_eopf, open_eopf
from pipeline.scenes.geotiff import RASTER_SUFFIXES, is_virtual, open_geotiff
from pipeline.scenes.hls import looks_like_hls, open_hls
from pipeline.scenes.landsat import MTL_NAME, looks_like_landsat, open_landsat
from pipeline.scenes.quality import PICTURES, role_of
from pipeline.scenes.remote import ITEM_FILE, JOURNAL_FILE, is_url, plain_url
from pipeline.scenes.sentinel2 import PRODUCT_XML, looks_like_safe, open_part, open_safe, product_around
from pipeline.scenes.settings import AS_FOUND, SceneOptions
from pipeline.scenes.sources import REFLECTANCE
from pipeline.scenes.stac_documents import items_of
from pipeline.scenes.stack import scenes_from_bands

if TYPE_CHECKING:
    from pipeline.scenes.scene import Scene


# An agency's products: how their files (relative paths) give them away, and what opens one from metadata alone.
PRODUCTS: dict[str, tuple[Callable[[Sequence[str]], bool], Callable[..., Scene]]] = {
    "safe": (looks_like_safe, open_safe),
    "landsat": (looks_like_landsat, open_landsat),
    "hls": (looks_like_hls, open_hls),
    "eopf": (looks_like_eopf, open_eopf),
}
LEVELS = dict.fromkeys(("L1C", "L1TP", "L1GT", "L1GS"), "top-of-atmosphere") | dict.fromkeys(
    ("L2A", "L2SP", "L2SR", "HLS"), "surface"
)
"""What the reflectance of a product level is measured at."""


def open_scene(
    path: Path | str,
    *, options: SceneOptions = AS_FOUND, resolution_m: float | None = None, mask: Sequence[str] | None = None,
) -> Scene:  # fmt: skip
    """The scene that a path stands for.

    Args:
        path: A SAFE folder or zip, a Landsat folder, tar or MTL file, a STAC item (JSON file or URL), a raster file
            (or its URL, read by range requests), or a folder of one raster file per band.
        options: What the user knows better than the file.
        resolution_m: Pixel size of the scene's grid in metres; None for the finest the product has.
        mask: Reasons that make pixels unusable (``quality.REASONS``); None for ``quality.DEFAULT_MASK``, () for none.
            Files without a quality layer are masked by their nodata alone.

    Raises:
        ConfigError: ``mask`` holds a reason that does not exist.
        SceneError: nothing there, or nothing that can be read as a scene.
    """
    kind = _kind(path)
    if kind == "stac":
        from pipeline.scenes.stac import open_item

        # An item may leave the scaling open: what the user knows must be there when it is decided.
        return open_item(str(path), options=options, resolution_m=resolution_m, mask=mask)
    if kind == "part":
        return _correct(open_part(Path(path), resolution_m=resolution_m, mask=mask), options)
    if kind in PRODUCTS:
        scene = PRODUCTS[kind][1](_product_folder(Path(path)), resolution_m=resolution_m, mask=mask)
        return _correct(scene, options)
    _refuse_layer(path, options)
    scene = open_geotiff(path, options=options, mask=mask)
    if resolution_m is None:
        return scene
    if scene.grid.crs.is_geographic:
        fix = "warp the scene to a projected CRS with gdalwarp"
        raise SceneError("resolution in metres asked of a scene in degrees", path=scene.path, fix=fix)
    return scene.on_grid(scene.grid.with_pixel_size_m(resolution_m))


def _refuse_layer(path: Path | str, options: SceneOptions) -> None:
    """Refuse a file that is by its name a quality layer of a product, unless its bands are named."""
    stem = PurePosixPath(plain_url(str(path))).stem
    role = None if options.bands or Path(path).is_dir() or PICTURES.fullmatch(stem) else role_of(stem)
    if role is not None:
        fix = "give the product's folder, whose bands it then masks, or name its bands (--bands, or scenes.bands)"
        what, got = "file is a quality layer and no scene, by its name", role.upper() or stem
        raise SceneError(what, path=path, got=got, fix=fix)


def open_all(
    path: Path | str,
    *, options: SceneOptions = AS_FOUND, resolution_m: float | None = None, mask: Sequence[str] | None = None,
) -> tuple[Scene, ...]:  # fmt: skip
    """The scenes that a path stands for: one, or those of a STAC collection, or one for every band that is a date.

    Raises:
        ConfigError: as :func:`open_scene`.
        SceneError: as :func:`open_scene`; or one time of acquisition for several scenes.
    """
    if options.dates is not None and options.bands is not None:
        plain = options.model_copy(update={"bands": None, "dates": None})
        scene = open_scene(path, options=plain, resolution_m=resolution_m, mask=mask)
        return scenes_from_bands(scene, dates=options.dates, band=options.bands[0])
    if _kind(path) != "stac":
        return (open_scene(path, options=options, resolution_m=resolution_m, mask=mask),)
    from pipeline.scenes.stac import open_items

    scenes = open_items(str(path), options=options, resolution_m=resolution_m, mask=mask)
    if len(scenes) > 1 and options.acquired_utc is not None:
        what = f"one time of acquisition for the {len(scenes)} items of a collection"
        raise SceneError(what, path=path, got=options.acquired_utc, fix="leave it out: the items say theirs")
    return scenes


def treatment(scene: Scene) -> str:
    """What the values of the reflective bands mean: at which level, and whether they are reflectance or counts."""
    units = sorted({source.unit for source in scene.bands if is_optical(source.band)})
    encoders = sorted({source.unit for source in scene.bands if is_embedding(source.unit)})
    if encoders:
        return " and ".join([*encoders, *units])
    if not units:
        return "no reflective bands"
    level = LEVELS.get(scene.level, f"level {scene.level}" if scene.level else "level not known")
    return f"{' and '.join(units)}, {level}" if units != [REFLECTANCE] else f"{level} reflectance"


def check_treatment(scenes: Sequence[Scene]) -> None:
    """Refuse scenes whose pixels do not mean the same.

    Raises:
        SceneError: names one scene of each treatment.
    """
    examples: dict[str, str] = {}
    for scene in scenes:
        examples.setdefault(treatment(scene), scene.id)
    if len(examples) > 1:
        what = "scenes of one run are treated differently"
        got = "; ".join(f"{name}: {meaning}" for meaning, name in examples.items())
        fix = "bring them to one product level and scaling, or ask for mixed scenes by allow_mixed"
        raise SceneError(what, got=got, expected="one product level and scaling", fix=fix)


def _kind(path: Path | str) -> str:
    """Which of the openers: "stac", "raster", "part" (of a SAFE) or a key of PRODUCTS."""
    if is_virtual(path):
        name = plain_url(str(path)).lower()
        return "stac" if is_url(name) and not name.endswith(tuple(RASTER_SUFFIXES)) else "raster"
    path = Path(path)
    by_name = {"landsat": MTL_NAME, "safe": PRODUCT_XML}
    kind = next((kind for kind, name in by_name.items() if name.fullmatch(path.name)), None)
    if kind is None and path.suffix.lower() in {".json", ".geojson"}:
        kind = "stac"
    if kind is None and product_around(path) is not None:
        kind = "part"
    if kind is None and path.is_dir():
        kind = _kind_of_folder(path)
    if kind is None and path.suffix.lower() in ARCHIVE_SUFFIXES and path.exists():
        kind = _kind_of_archive(path)
    return kind or "raster"


def _kind_of_archive(path: Path) -> str:
    names = list_product(path).names
    inner = [name.split("/", 1)[-1] for name in names]
    for kind, (looks_like, _) in PRODUCTS.items():
        if looks_like(names) or looks_like(inner):
            return kind
    what = "archive holds no Sentinel-2 SAFE, Landsat or HLS product"
    raise ProductError(what, path=path, got=", ".join(names[:3]), fix="unpack it and give the folder")


def _kind_of_folder(path: Path) -> str:
    children = [child.name for child in path.iterdir()]
    if ITEM_FILE in children:
        return "stac"
    if JOURNAL_FILE in children:
        raise ProductError("download is not complete", path=path, fix="run the same landcover search again")
    safes = [name for name in children if name.upper().endswith(".SAFE")]
    in_safe = path.name.upper().endswith(".SAFE") or path.parent.name == "GRANULE" or looks_like_safe(children)
    if in_safe or safes:
        return "safe"
    return next((kind for kind, (looks_like, _) in PRODUCTS.items() if looks_like(children)), "raster")


def _product_folder(path: Path) -> Path:
    """The SAFE in a folder made by unpacking one (several are refused), or around its XML; else the path as it is."""
    if PRODUCT_XML.fullmatch(path.name):
        return path.parent
    safes = sorted(path.glob("*.SAFE")) if path.is_dir() else []
    if len(safes) > 1:
        what = f"{len(safes)} products given as one scene"
        raise ProductError(what, path=path, got=", ".join(safe.name for safe in safes), fix="give them one by one")
    return safes[0] if safes else path


def _correct(scene: Scene, options: SceneOptions) -> Scene:
    """What the user knows better about an agency's product: scaling and time; its bands and sensor are certain."""
    if options.bands is not None or options.sensor not in {None, scene.sensor}:
        what = "band names and sensor of an agency's product cannot be set, as its metadata states them"
        raise SceneError(what, path=scene.path, got=options.bands or options.sensor, expected=scene.sensor)
    bands = tuple(
        source
        if source.unit != REFLECTANCE or (options.scale is None and options.offset is None)
        else replace(
            source,
            scale=source.scale if options.scale is None else options.scale,
            offset=source.offset if options.offset is None else options.offset,
            provenance=f"config, instead of {source.provenance}",
        )
        for source in scene.bands
    )
    if options.nodata is not None:
        bands = tuple(replace(source, nodata=options.nodata_or(None), nodata_stated=True) for source in bands)
    return replace(scene, bands=bands, acquired_utc=options.acquired_utc or scene.acquired_utc)


LISTS = frozenset({".txt", ".lst", ".csv"})
STAC = frozenset({".json", ".geojson"})


def list_scenes(given: Path | str, *, items: Path) -> list[str]:
    """The scenes that ``given`` stands for, in order.

    Args:
        given: A text file (a path or URL per line, relative to the file; empty lines and lines that start with # do not
            count); a folder (of products, of files with several bands, or itself a scene); a STAC item, item
            collection, collection or catalogue, as a file or URL.
        items: Folder into which the items of a STAC collection are written, one by one.

    Raises:
        InputError: nothing there, or nothing in it.
        ProductError: not STAC.
    """
    if is_url(str(given)):
        return _stac_items(str(given), items)
    path = Path(given)
    if path.is_dir():
        found = _scenes_in(path)
    elif not path.exists():
        raise InputError("no such list of scenes", path=path, expected="a text file, a folder, or STAC items")
    elif path.suffix.lower() in LISTS:
        found = _listed_lines(path)
    elif path.suffix.lower() in STAC:
        found = _stac_items(str(path), items)
    else:
        found = [str(path)]
    if not found:
        expected = "paths, products, rasters of several bands or STAC items"
        raise InputError("no scene in it", path=path, expected=expected)
    return found


def _listed_lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as err:
        raise InputError("list of scenes cannot be read", path=path, got=err, expected="a path per line") from err
    kept = (line for line in lines if line and not line.startswith("#"))
    return [line if is_url(line) or line.startswith("/vsi") else str(path.parent / line) for line in kept]


def _stac_items(given: str, folder: Path) -> list[str]:
    found = items_of(given)
    if len(found) == 1:
        return [given]
    written = []
    for item in found:
        item.make_asset_hrefs_absolute()
        target = folder / f"{item.id.replace('/', '_')}.json"
        text = json.dumps(item.to_dict(include_self_link=False))
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            write_text(target, text, what="a STAC item")
        written.append(str(target))
    return written


def _scenes_in(path: Path) -> list[str]:
    """The folder itself where it is a product or holds the bands of one; else what it holds."""
    children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    names = [child.name for child in children]
    if path.name.upper().endswith(".SAFE") or looks_like_safe(names) or looks_like_landsat(names) or ITEM_FILE in names:
        return [str(path)]
    rasters = [child for child in children if child.is_file() and child.suffix.lower() in RASTER_SUFFIXES]
    whole = [child for child in rasters if _several_bands(child)]
    if rasters and not whole:
        return [str(path)]
    others = [child for child in children if child not in rasters and _may_be_scene(child)]
    return [str(child) for child in sorted([*whole, *others])]


def _several_bands(path: Path) -> bool:
    """Whether a raster may be a scene by itself; one that cannot be opened is listed and reported as broken."""
    try:
        with rasterio.open(path) as dataset:
            return bool(dataset.count > 1)
    except RasterioError:
        return True


def _may_be_scene(path: Path) -> bool:
    if path.is_dir():
        return any(True for _ in path.iterdir())
    return path.suffix.lower() in ARCHIVE_SUFFIXES | STAC
