"""Sources made of sources (indices, layers, stacks, composites): what they share, their reader; the place as bands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

from pipeline.errors import SceneError
from pipeline.raster import Raster
from pipeline.scenes.reader import Reader
from pipeline.scenes.scene import Scene, Source

if TYPE_CHECKING:
    from pipeline.grid import Grid, Window


@dataclass(frozen=True, eq=False)
class DerivedReader(Reader):
    """Gives what ``compute`` makes of the windows of ``inputs``; closes them with itself."""

    grid: Grid  # The grid that windows are counted on
    bands: tuple[str, ...]  # Names of the bands of every Raster read
    inputs: tuple[Reader, ...]  # Readers that this one owns
    # Called with the inputs and the window, which may reach beyond the grid, for every read
    compute: Callable[[Sequence[Reader], Window], Raster]

    def read(self, window: Window) -> Raster:
        """What is made of ``window``."""
        return self.compute(self.inputs, window)

    def close(self) -> None:
        """Close the inputs."""
        for reader in self.inputs:
            reader.close()


@dataclass(frozen=True)
class Derived:
    """What a source made of others takes from them: one scene with bands appended, or the dates of one place."""

    id: str  # Name, unique in a run
    # On one grid; several have the same bands and are in time order where their dates are known
    inputs: tuple[Source, ...]
    names: tuple[str, ...]  # Bands to give, in order

    @property
    def path(self) -> str:
        """The first input's path; ``files`` has them all."""
        return self.inputs[0].path

    @property
    def grid(self) -> Grid:
        """The grid that all inputs are read on."""
        return self.inputs[0].grid

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in order."""
        return self.names

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each band, "" of what is computed; a band of a stack (nir_t1) has that of the band of a date."""
        known = dict(zip(self.inputs[0].band_names, self.inputs[0].units, strict=True))
        return tuple(known.get(name, known.get(name.rpartition("_")[0], "")) for name in self.names)

    @property
    def sensor(self) -> str:
        """The sensor of all inputs, "" where they differ."""
        return shared(source.sensor for source in self.inputs)

    @property
    def level(self) -> str:
        """The product level of all inputs, "" where they differ."""
        return shared(source.level for source in self.inputs)

    @property
    def baseline(self) -> str:
        """The baseline of all inputs, "" where they differ."""
        return shared(source.baseline for source in self.inputs)

    @property
    def acquired_utc(self) -> datetime | None:
        """The first date, None where no date is known."""
        return self.inputs[0].acquired_utc

    @property
    def files(self) -> tuple[str, ...]:
        """Files of all inputs."""
        return tuple(dict.fromkeys(file for source in self.inputs for file in source.files))

    def select(self, names: Sequence[str]) -> Self:
        """Only ``names``, in that order; inputs are read as before, so which pixels are valid does not change."""
        missing = [name for name in names if name not in self.names]
        if missing:
            what, got = f"scene lacks band {', '.join(missing)}", ", ".join(self.names)
            raise SceneError(what, path=self.path, got=got, expected=", ".join(names))
        refuse_twice(names, path=self.path)
        return replace(self, names=tuple(names))

    def base(self) -> Source:
        """The first input with its bands that are asked for; with all where none is, as its mask holds for the rest."""
        own = [name for name in self.inputs[0].band_names if name in self.names]
        return self.inputs[0].select(own) if own else self.inputs[0]

    def on_grid(self, grid: Grid, *, for_display: bool = False) -> Self:
        """The same with every input on another grid."""
        return replace(self, inputs=tuple(source.on_grid(grid, for_display=for_display) for source in self.inputs))

    def dates_ledger(self, *, kind: str) -> dict[str, object]:
        """What stacks and composites say about themselves, JSON-ready."""
        when = self.acquired_utc
        return {
            "scene": self.id,
            "kind": kind,
            "sensor": self.sensor,
            "level": self.level,
            "baseline": self.baseline,
            "acquired_utc": when.isoformat() if when else None,
            "bands": [{"band": name} for name in self.names],
            "scenes": [source.ledger() for source in self.inputs],
        }


def plain_scenes(source: Source) -> tuple[Scene, ...]:
    """The scenes of files that a source is made of, in its order: indices and layers taken off, dates one by one."""
    if isinstance(source, Scene):
        return (source,)
    return tuple(scene for one in getattr(source, "inputs", ()) for scene in plain_scenes(one))


def shared(values: Iterable[str]) -> str:
    """The one value that all inputs have, "" where they differ.

    >>> shared(["L2A", "L2A"]), shared(["L2A", "L1C"])
    ('L2A', '')
    """
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else ""


def refuse_twice(names: Sequence[str], *, path: str) -> None:
    """SceneError where a band name stands twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SceneError(f"band name used twice: {', '.join(twice)}", path=path, fix="rename or drop one of them")


def in_time_order(scenes: Sequence[Source]) -> list[tuple[datetime, Source]]:
    """Scenes with their dates, earliest first; those of the same day stay apart and in order.

    Raises:
        SceneError: no scene, or one whose date nobody knows.
    """
    if not scenes:
        raise SceneError("no scene given", expected="at least one")
    known: list[tuple[datetime, Source]] = []
    for scene in scenes:
        if scene.acquired_utc is None:
            fix = "give a date for every scene (acquired_utc in a configuration, --date beside --scene)"
            raise SceneError("date of acquisition unknown", path=scene.path, fix=fix)
        known.append((scene.acquired_utc, scene))
    return sorted(known, key=lambda pair: pair[0])


def common_input(scenes: Sequence[Source]) -> tuple[Source, ...]:
    """The scenes on the finest of their grids, with the bands that all of them have.

    Bands keep the order of the first scene.

    Raises:
        SceneError: no band is in all scenes.
    """
    target = min((scene.grid for scene in scenes), key=lambda one: one.pixel_size_m[0])
    names = [name for name in scenes[0].band_names if all(name in scene.band_names for scene in scenes)]
    if not names:
        got = " | ".join(", ".join(scene.band_names) for scene in scenes)
        raise SceneError("scenes have no band in common", got=got, fix="name the bands (--bands, or scenes.bands)")
    return tuple((scene if scene.grid == target else scene.on_grid(target)).select(names) for scene in scenes)


PLACE = ("easting", "northing")


@dataclass(frozen=True)
class WithPlace(Derived):
    """A source with easting and northing appended, in thousands of its CRS's units; opened like a scene."""

    def ledger(self) -> dict[str, object]:
        """The source's ledger, and that places were added."""
        return self.inputs[0].ledger() | {"place": [name for name in PLACE if name in self.names]}

    def open(self) -> Reader:
        """A reader."""
        return DerivedReader(self.grid, self.names, (self.base().open(),), partial(_placed, names=self.names))


def with_place(source: Source) -> WithPlace:
    """``source`` with the bands easting and northing.

    Raises:
        SceneError: it has bands of these names.
    """
    names = (*source.band_names, *PLACE)
    refuse_twice(names, path=source.path)
    return WithPlace(source.id, (source,), names)


def _placed(inputs: Sequence[Reader], window: Window, *, names: Sequence[str]) -> Raster:
    base = inputs[0].read(window)
    t = base.grid.transform
    rows, cols = np.mgrid[0 : window.height, 0 : window.width] + 0.5
    place = {PLACE[0]: (t.a * cols + t.b * rows + t.c) / 1000.0, PLACE[1]: (t.d * cols + t.e * rows + t.f) / 1000.0}
    found = dict(zip(base.bands, base.values, strict=True)) | place
    values = np.stack([np.asarray(found[name], dtype=np.float32) for name in names])
    np.multiply(values, base.valid, out=values)
    return Raster(values, base.valid, tuple(names), base.grid)
