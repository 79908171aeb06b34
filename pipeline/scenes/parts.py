"""What a source is made of: the scenes of files behind indices, layers, stacks and composites."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.scenes.scene import Scene

if TYPE_CHECKING:
    from pipeline.scenes.scene import Source


def plain_scenes(source: Source) -> tuple[Scene, ...]:
    """The scenes of files that a source is made of, in its order: indices and layers taken off, dates one by one."""
    if isinstance(source, Scene):
        return (source,)
    inner = getattr(source, "scenes", None) or (getattr(source, "source", None),)
    return tuple(scene for one in inner if one is not None for scene in plain_scenes(one))


def units_of(source: Source) -> tuple[str, ...]:
    """Unit of each band, "" for what is computed (an index, a slope).

    A band of a stack is called after the band of a date and the date, and has its unit.
    """
    units = {band.band: band.unit for scene in plain_scenes(source) for band in scene.bands}
    return tuple(units.get(name, units.get(name.rpartition("_")[0], "")) for name in source.band_names)
