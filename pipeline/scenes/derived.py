"""DerivedReader: Rasters computed window by window from other readers (indices, layers, stacks, composites)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

from pipeline.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from types import TracebackType

    from pipeline.grid import Grid, Window
    from pipeline.raster import Raster
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source


class Compute(Protocol):
    """Pixels of one window, from the open readers of the inputs."""

    def __call__(self, inputs: Sequence[Reader], window: Window) -> Raster:
        """The raster of ``window``, which may reach beyond the grid."""


@dataclass(frozen=True, eq=False)
class DerivedReader:
    """Gives what ``compute`` makes of the windows of ``inputs``; closes them with itself.

    Attributes:
        grid: The grid that windows are counted on.
        bands: Names of the bands of every Raster read.
        inputs: Readers that this one owns.
        compute: Called with the inputs and the window for every read.
    """

    grid: Grid
    bands: tuple[str, ...]
    inputs: tuple[Reader, ...]
    compute: Compute

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the inputs."""
        self.close()

    def read(self, window: Window) -> Raster:
        """Pixels of ``window``, as every Reader gives them."""
        return self.compute(self.inputs, window)

    def close(self) -> None:
        """Close the inputs."""
        for reader in self.inputs:
            reader.close()


class OnSource:
    """What a source with bands appended takes from the source it stands on."""

    source: Source
    names: tuple[str, ...]

    @property
    def id(self) -> str:
        """The source's name."""
        return self.source.id

    @property
    def path(self) -> str:
        """The source's path."""
        return self.source.path

    @property
    def grid(self) -> Grid:
        """The source's grid."""
        return self.source.grid

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in order."""
        return self.names

    @property
    def sensor(self) -> str:
        """The source's sensor."""
        return self.source.sensor

    @property
    def level(self) -> str:
        """The source's product level."""
        return self.source.level

    @property
    def baseline(self) -> str:
        """The source's baseline."""
        return self.source.baseline

    @property
    def acquired_utc(self) -> datetime | None:
        """The source's time of acquisition."""
        return self.source.acquired_utc


@dataclass(frozen=True)
class OfScenes:
    """What a source made of several scenes takes from them, be it a stack or a composite.

    Attributes:
        id: Name, unique in a run.
        scenes: On one grid, with the same bands; in time order where their dates are known.
        names: Bands to give, in order.
    """

    id: str
    scenes: tuple[Source, ...]
    names: tuple[str, ...]

    @property
    def path(self) -> str:
        """The first scene's path; ``files`` has them all."""
        return self.scenes[0].path

    @property
    def grid(self) -> Grid:
        """The grid that all dates are read on."""
        return self.scenes[0].grid

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in order."""
        return self.names

    @property
    def sensor(self) -> str:
        """The sensor of all dates, "" where they differ."""
        return shared(scene.sensor for scene in self.scenes)

    @property
    def level(self) -> str:
        """The product level of all dates, "" where they differ."""
        return shared(scene.level for scene in self.scenes)

    @property
    def baseline(self) -> str:
        """The baseline of all dates, "" where they differ."""
        return shared(scene.baseline for scene in self.scenes)

    @property
    def acquired_utc(self) -> datetime | None:
        """The first date, None where no date is known."""
        return self.scenes[0].acquired_utc

    @property
    def files(self) -> tuple[str, ...]:
        """Files of all dates."""
        return tuple(dict.fromkeys(file for scene in self.scenes for file in scene.files))

    def select(self, names: Sequence[str]) -> Self:
        """Only ``names``, in that order; all dates are read still: which are valid or chosen does not change."""
        return replace(self, names=pick(names, have=self.names, path=self.path))

    def on_grid(self, grid: Grid, *, for_display: bool = False) -> Self:
        """The same with every date on another grid."""
        return replace(self, scenes=tuple(scene.on_grid(grid, for_display=for_display) for scene in self.scenes))

    def common_ledger(self, *, kind: str) -> dict[str, object]:
        """What both kinds say about themselves, JSON-ready."""
        when = self.acquired_utc
        return {
            "scene": self.id,
            "kind": kind,
            "sensor": self.sensor,
            "level": self.level,
            "baseline": self.baseline,
            "acquired_utc": when.isoformat() if when else None,
            "bands": [{"band": name} for name in self.names],
            "scenes": [scene.ledger() for scene in self.scenes],
        }


def shared(values: Iterable[str]) -> str:
    """The one value that all inputs have, "" where they differ.

    >>> shared(["L2A", "L2A"]), shared(["L2A", "L1C"])
    ('L2A', '')
    """
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else ""


def pick(names: Sequence[str], *, have: Sequence[str], path: str) -> tuple[str, ...]:
    """``names``, all of which must be in ``have`` and none twice.

    Raises:
        SceneError: names what is missing or repeated.
    """
    missing = [name for name in names if name not in have]
    if missing:
        what = f"scene lacks band {', '.join(missing)}"
        raise SceneError(what, path=path, got=", ".join(have), expected=", ".join(names))
    refuse_twice(names, path=path)
    return tuple(names)


def refuse_twice(names: Sequence[str], *, path: str) -> None:
    """SceneError where a band name stands twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SceneError(f"band name used twice: {', '.join(twice)}", path=path, fix="rename or drop one of them")


def in_time_order(scenes: Sequence[Source], dates: Sequence[datetime | None]) -> list[tuple[datetime, Source]]:
    """Scenes with their dates, earliest first; those of the same day stay apart and in order.

    Args:
        scenes: At least one.
        dates: One per scene; None takes the scene's own time of acquisition.

    Raises:
        SceneError: no scene, another number of dates, or a scene whose date nobody knows.
    """
    if not scenes:
        raise SceneError("no scene given", expected="at least one")
    if len(dates) != len(scenes):
        raise SceneError("number of dates", got=len(dates), expected=f"{len(scenes)}, one per scene")
    known: list[tuple[datetime, Source]] = []
    for scene, date in zip(scenes, dates, strict=True):
        when = date or scene.acquired_utc
        if when is None:
            fix = "give a date for every scene (acquired_utc in a configuration, --date beside --scene)"
            raise SceneError("date of acquisition unknown", path=scene.path, fix=fix)
        known.append((when, scene))
    return sorted(known, key=lambda pair: pair[0])


def common_input(scenes: Sequence[Source], *, grid: Grid | None) -> tuple[Source, ...]:
    """The scenes on one grid (the finest of theirs unless given), with the bands that all of them have.

    Bands keep the order of the first scene.

    Raises:
        SceneError: no band is in all scenes.
    """
    target = grid or min((scene.grid for scene in scenes), key=lambda one: one.pixel_size_m[0])
    names = [name for name in scenes[0].band_names if all(name in scene.band_names for scene in scenes)]
    if not names:
        got = " | ".join(", ".join(scene.band_names) for scene in scenes)
        raise SceneError("scenes have no band in common", got=got, fix="name the bands in the config")
    return tuple((scene if scene.grid == target else scene.on_grid(target)).select(names) for scene in scenes)
