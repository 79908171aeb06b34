"""``landcover search``: scenes of an area from a STAC API, listed or downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path

from pipeline.errors import ConfigError, counted
from pipeline.scenes.search import FoundScene, find_scenes
from pipeline.scenes.search import download as fetch
from pipeline.scenes.settings import SceneOptions
from pipeline.settings import checked
from pipeline.workflow.outcome import Outcome, Progress, Table


def search_scenes(
    api: str,
    *, collections: Sequence[str], area: str, dates: str, max_cloud: float, limit: int, bands: tuple[str, ...] | None,
    download: Path | None, progress: Progress, mirror: str | None = None,
) -> Outcome:  # fmt: skip
    """Find scenes and, where a folder is given, download the bands and the window needed.

    Of a download that was broken off, the same command fetches what is missing: files that are complete stay.

    Raises:
        ConfigError: an area or dates that make no sense, or pystac-client is not installed.
        ProductError: the API does not answer, or an asset cannot be downloaded.
        OutputError: the folder cannot be written.
    """
    where = parse_area(area)
    start, end = parse_dates(dates)
    options = checked(SceneOptions, {"mirror": mirror})
    found: list[FoundScene] = []
    full = False
    for collection in collections:
        some = find_scenes(
            where, api=api, collection=collection, start=start, end=end, max_cloud_percent=max_cloud, limit=limit
        )
        full |= len(some) == limit
        found += some
    written = []
    for number, scene in enumerate(found if download is not None else ()):
        progress("scenes", number, len(found))
        step = partial(_downloading, progress, scene.id)
        written.append(fetch(scene, download or Path(), area=where, bands=bands, options=options, progress=step))
        progress("scenes", number + 1, len(found))
    rows = tuple(
        (
            item.id,
            item.acquired_utc.date().isoformat() if item.acquired_utc else "?",
            "?" if item.cloud_percent is None else f"{item.cloud_percent:.0f} %",
        )
        for item in found
    )
    return Outcome(
        summary=f"{counted(len(found), 'scene')} found" + (", as many as --limit allows" if full else ""),
        tables=(Table("scenes", ("id", "date", "clouds"), rows),) if rows else (),
        written=tuple(written),
        hint="give a downloaded folder to landcover init --scene" if written else "",
        data={"scenes": [{"id": row[0], "date": row[1], "clouds": row[2]} for row in rows]},
    )


def _downloading(progress: Progress, scene: str, _file: str, done: int, total: int) -> None:
    """One bar per scene, counted in blocks of all its files."""
    progress(f"downloading {scene}", done, total)


def parse_area(text: str) -> tuple[float, float, float, float] | Path:
    """Corner coordinates (west,south,east,north in degrees), or a file of polygons.

    >>> parse_area("13,52,13.5,52.5")
    (13.0, 52.0, 13.5, 52.5)
    """
    parts = text.split(",")
    if len(parts) != 4:  # noqa: PLR2004 - four sides
        return Path(text)
    try:
        west, south, east, north = map(float, parts)
    except ValueError as err:
        raise ConfigError("option --area", got=text, expected="west,south,east,north in degrees, or a file") from err
    return west, south, east, north


def parse_dates(text: str) -> tuple[date, date]:
    """First and last day of "2024-05-01/2024-09-30".

    >>> parse_dates("2024-05-01/2024-05-02")[1]
    datetime.date(2024, 5, 2)
    """
    first, _, last = text.partition("/")
    try:
        return date.fromisoformat(first), date.fromisoformat(last or first)
    except ValueError as err:
        raise ConfigError("option --dates", got=text, expected="2024-05-01/2024-09-30") from err
