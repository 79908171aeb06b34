"""What a user can set about objects: classes of a map that become one polygon per object."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings import Settings


class ObjectSettings(Settings):
    """How classes with objects: true become polygons, one per object (<scene>_objects.gpkg)."""

    classes: tuple[str, ...] = Field(
        (), description="Classes whose objects are wanted, by name. Default: those with objects: true."
    )
    min_area_m2: float | None = Field(None, ge=0, description="Smallest object in m2. Default: nine pixels.")
    tolerance_m: float | None = Field(
        None, gt=0, description="How far outlines may be moved to have fewer corners, in m. Default: 1.5 pixels."
    )
    right_angles: bool = Field(
        default=True, description="Outlines get right angles where these fit; else they are simplified only."
    )
    separate: bool = Field(
        default=True, description="Objects that touch at a narrow neck, or where the model is less sure, are separated."
    )
