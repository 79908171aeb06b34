"""Find scenes in a STAC API and download the bands and the window needed (the extra ``[stac]``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, ProductError
from pipeline.files import prepare_folder, write_bytes, write_json
from pipeline.scenes import remote
from pipeline.scenes.settings import AS_FOUND, SceneOptions
from pipeline.scenes.stac import open_item
from pipeline.scenes.stac_assets import asset_bands, choose, find_asset, mask_assets
from pipeline.scenes.stac_documents import read_item
from pipeline.scenes.stac_scaling import MIRROR_PROPERTY, read_facts, read_signed

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from pipeline.scenes.scene import Scene

Bounds = tuple[float, float, float, float]
Area = Bounds | Path | str
Progress = Callable[[str, int, int], None]
"""Called with the file's name, blocks done and blocks in all."""

APIS = {
    "earth-search": "https://earth-search.aws.element84.com/v1",
    "planetary-computer": "https://planetarycomputer.microsoft.com/api/stac/v1",
}
_FULL = 100.0


@dataclass(frozen=True, eq=False)
class FoundScene:
    """One answer of a search."""

    id: str  # The item's id
    collection: str  # The item's collection, or ""
    acquired_utc: datetime | None  # Time of acquisition, None where the item has none
    cloud_percent: float | None  # Clouds of the whole scene as its producer estimates them, None where unknown
    covered_frac: float  # Share of the area inside the scene's footprint, 0..1 (of the footprint, which may have gaps)
    document: Mapping[str, Any]  # The item as JSON


def find_scenes(
    area: Area, *, api: str, collection: str, start: date, end: date, max_cloud_percent: float = _FULL, limit: int = 100
) -> list[FoundScene]:
    """Scenes of an area and time, earliest first.

    ``area`` is (west, south, east, north) in degrees, or a file of polygons in any CRS; ``api`` a name of ``APIS`` or
    an address. The last day is included. Scenes that do not say how clouded they are stay.

    Raises:
        ConfigError: pystac-client is not installed, or the area or dates make no sense.
        ProductError: the API cannot be reached or does not answer as one.
    """
    if end < start:
        raise ConfigError("dates of a search", got=f"{start} to {end}", expected="start before end")
    wanted = area_shape(area)
    times = datetime.combine(start, time.min, UTC), datetime.combine(end, time.max, UTC)
    answers = _search(
        APIS.get(api, api), collection=collection, area=wanted, times=times, max_cloud_percent=max_cloud_percent,
        limit=limit,
    )  # fmt: skip
    scenes = (_found(document, wanted) for document in answers)
    found = [scene for scene in scenes if scene.cloud_percent is None or scene.cloud_percent <= max_cloud_percent]
    return sorted(found, key=lambda scene: (scene.acquired_utc or datetime.min.replace(tzinfo=UTC), scene.id))


def area_shape(area: Area) -> BaseGeometry:
    """A polygon in degrees (EPSG:4326) from a box or a file.

    Raises:
        ConfigError: not a box in degrees, or a file without polygons or CRS.
    """
    from shapely.geometry import box

    if isinstance(area, tuple):
        west, south, east, north = area
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):  # noqa: PLR2004 - degrees
            raise ConfigError("area of a search", got=area, expected="west < east, south < north in degrees")
        return box(west, south, east, north)
    import geopandas as gpd
    from pyogrio.errors import DataSourceError

    try:
        frame = gpd.read_file(area)
    except (DataSourceError, OSError) as err:
        raise ConfigError("area of a search cannot be read", path=area, got=err, expected="a polygon file") from err
    if frame.empty or frame.crs is None:
        raise ConfigError("area of a search has no polygons or no CRS", path=area)
    geometry: BaseGeometry = frame.to_crs(4326).geometry.union_all()
    return geometry


def _search(
    api: str,
    *, collection: str, area: BaseGeometry, times: tuple[datetime, datetime], max_cloud_percent: float, limit: int,
) -> list[dict[str, Any]]:  # fmt: skip
    try:
        import pystac_client
        from pystac_client.exceptions import APIError
        from pystac_client.stac_api_io import StacApiIO
    except ImportError as err:
        fix = "install it with: pip install 'landcover-pipeline[stac]'"
        raise ConfigError("searching needs pystac-client", fix=fix) from err
    from pystac import STACError
    from requests import RequestException

    try:
        client = pystac_client.Client.open(
            api, stac_io=StacApiIO(timeout=(remote.CONNECT_S, remote.READ_S), max_retries=remote.ATTEMPTS)
        )
        # Not every API filters by clouds; the caller does it again in any case.
        by_cloud = max_cloud_percent < _FULL and client.conforms_to("QUERY")
        answer = client.search(
            collections=[collection], intersects=area, datetime=times,
            query={"eo:cloud_cover": {"lte": max_cloud_percent}} if by_cloud else None, max_items=limit,
        )  # fmt: skip
        # Whatever an answer says of itself, it came over the network and may name nothing else.
        return [item | {"links": _own_links(item, api)} for item in answer.items_as_dicts()]
    except (APIError, STACError, RequestException, ValueError, KeyError, NotImplementedError) as err:
        fix = "check its address, or try again later"
        raise ProductError("STAC API cannot be searched", path=remote.plain_url(api), got=err, fix=fix) from err


def _own_links(item: Mapping[str, Any], api: str) -> list[Any]:
    links = [link for link in item.get("links") or () if isinstance(link, dict)]
    known = any(link.get("rel") == "self" and remote.is_url(str(link.get("href"))) for link in links)
    return links if known else [{"rel": "self", "href": f"{api}/{item.get('id')}"}, *links]


def _found(document: dict[str, Any], area: BaseGeometry) -> FoundScene:
    from shapely.geometry import shape

    item = read_item(document)
    footprint = shape(document["geometry"]) if document.get("geometry") else None
    covered = footprint.intersection(area).area / area.area if footprint is not None and area.area > 0 else 0.0
    cloud = item.properties.get("eo:cloud_cover")
    return FoundScene(
        id=item.id,
        collection=item.collection_id or "",
        acquired_utc=item.datetime,
        cloud_percent=float(cloud) if cloud is not None else None,
        covered_frac=min(covered, 1.0),
        document=document,
    )


def download(
    found: FoundScene | Mapping[str, Any], folder: Path | str,
    *, area: Area | None = None, bands: Sequence[str] | None = None, options: SceneOptions = AS_FOUND,
    progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Bands and quality layers of one scene, cut to ``area``, as ``folder/<id>``; what is complete stays as it is.

    The folder has a GeoTIFF per asset and the item, its assets now these files: scaling is decided as for the original.
    A file is complete when its content has the checksum that the folder's journal gives for the same source and window.
    Files are written aside and renamed when whole; the item is written last.

    ``area`` is as for :func:`find_scenes`, ``options`` as for :func:`pipeline.scenes.stac.open_item`; ``progress`` is
    called after each block.

    Raises:
        ProductError: an asset is gone or cannot be read, or the scaling cannot be decided.
        OutputError: the folder cannot be written.
    """
    document = dict(found.document if isinstance(found, FoundScene) else found)
    scene = open_item(document, options=options, bands=bands)
    target = Path(folder) / _safe_name(scene.id)
    prepare_folder(target)
    jobs = _jobs(document, scene, area=area)
    blocks, done = sum(job.blocks for job in jobs), 0
    journal = remote.read_journal(target)
    placed: dict[str, dict[str, Any]] = {}
    for job in jobs:
        if not remote.is_complete(job, target, journal):
            remote.copy_window(job, target, journal, step=_stepper(progress, job.file, done, blocks))
        done += job.blocks
        if progress is not None:
            progress(job.file, done, blocks)
        for key in job.keys:
            placed[key] = {"href": f"./{job.file}", **job.proj}
    _write_item(document, scene, target, placed=placed)
    return target


def _stepper(progress: Progress | None, file: str, before: int, total: int) -> Callable[[int], None]:
    return (lambda block: progress(file, before + block, total)) if progress is not None else (lambda _: None)


def _safe_name(text: str) -> str:
    """An id as a folder name: ids come from a server and must not climb out of the folder."""
    name = "".join(char if char.isalnum() or char in "._-" else "_" for char in text).lstrip(".")
    if not name:
        raise ProductError("STAC item with an id that cannot name a folder", got=repr(text))
    return name


def _jobs(document: dict[str, Any], scene: Scene, *, area: Area | None) -> list[remote.CopyJob]:
    item = read_item(document)
    sensor = read_facts(item, mirror=None).sensor
    chosen = choose(asset_bands(item, sensor=sensor), sensor=sensor)
    bounds = area_shape(area).bounds if area is not None else None
    sources: dict[str, list[str]] = {}
    for band in scene.bands:
        sources.setdefault(band.path, []).append(chosen[band.band].key)
    for layer in scene.quality:
        href = mask_assets(item).get(layer.name.lower().removeprefix("msk_"))
        keys = [key for key, asset in item.assets.items() if (asset.get_absolute_href() or asset.href) == href]
        sources.setdefault(layer.path, []).extend(keys)
    return [
        remote.CopyJob.plan(path, file=f"{_safe_name(keys[0])}.tif", keys=tuple(dict.fromkeys(keys)), bounds=bounds)
        for path, keys in sources.items()
    ]


def _write_item(document: dict[str, Any], scene: Scene, target: Path, *, placed: Mapping[str, dict[str, Any]]) -> None:
    item = read_item(document)
    assets = {key: document["assets"][key] | fields for key, fields in placed.items()}
    href = find_asset(item, "product_metadata")
    key = next((k for k, a in item.assets.items() if (a.get_absolute_href() or a.href) == href), None)
    if href is not None and key is not None:
        data = read_signed(href, mirror=scene.mirror)
        write_bytes(target / "product-metadata.xml", data, what="product metadata")
        assets[key] = document["assets"][key] | {"href": "./product-metadata.xml"}
    properties = document["properties"] | ({MIRROR_PROPERTY: scene.mirror} if scene.mirror else {})
    links = [link for link in document.get("links", []) if link.get("rel") in {"license", "derived_from"}]
    source = next((link["href"] for link in document.get("links", []) if link.get("rel") == "self"), None)
    links += [{"rel": "derived_from", "href": source}] if source else []
    local = document | {"assets": assets, "properties": properties, "links": links}
    write_json(target / remote.ITEM_FILE, local, what="the item of a download")
