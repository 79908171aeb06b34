"""Settings of forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from pipeline.settings import Settings, absolute

# What says that a folder is one of a forecast.
FACTS = "forecast.json"
# Tags of a step: its time, what made it, and the last step that it was made from.
TIME_TAG, FORECAST_TAG, ORIGIN_TAG = "TIME", "FORECAST", "ORIGIN"
# How the bands of a channel's bounds are called after it.
LOWER, UPPER = " lower", " upper"


def run_folder(config: Path) -> Path:
    """Where ``landcover run`` writes the forecast of a configuration."""
    return config.with_name(f"{config.stem}-run")


class ForecastSettings(Settings):
    """What a forecast is made from, how its network is trained and over which steps it is tested."""

    series: tuple[str, ...] = Field(
        min_length=1, description="GeoTIFFs with a date in each band, or folders of GeoTIFFs with a date each."
    )
    ahead: int = Field(default=6, ge=1, le=500, description="Steps to forecast.")
    seasons: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(), description="Lengths of the cycles in steps; by default day, week and year, as the dates allow."
    )
    closeness: int = Field(default=6, ge=1, le=100, description="Last steps that a forecast is made from.")
    known: str | None = Field(
        default=None, description="CSV of `time` and numbers known ahead, such as holidays or a weather forecast."
    )
    layers: tuple[str, ...] = Field(default=(), description="Rasters of one date, such as elevation.")
    test_steps: int | None = Field(
        default=None, ge=1, description="Last steps over which forecasts are tested; by default a tenth."
    )
    width: int = Field(default=64, ge=4, le=1024, description="Units of each layer of the network.")
    steps: int = Field(default=1500, ge=50, description="Training steps of the network.")
    dropout: Annotated[float, Field(ge=0, lt=1, description="Share of units left out in training.")] = 0.2
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seed: the same seed gives the same forecast.")

    @field_validator("series", "layers")
    @classmethod
    def _paths(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return tuple(absolute(item, info) for item in value)

    @field_validator("known")
    @classmethod
    def _path(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else absolute(value, info)
