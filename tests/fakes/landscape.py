"""One simulated landscape, in the terms of every fake product: 240 m fields, each of one colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.bands import SENTINEL2
from tests.fakes.safe import ULX, ULY

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A whole number of pixels of 10, 20, 30 and 60 m.
FIELD_M = 240
NAMES = tuple(spec.name for spec in SENTINEL2)
NAME_OF = {spec.key: spec.name for spec in SENTINEL2}


def reflectance(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflectance of a band by its common name, 0.02 to 0.42; kelvin for the thermal band of Landsat."""
    if name == "lwir11":
        return np.full(x.shape, 290.0)
    field = np.floor((x - ULX) / FIELD_M) + 11 * np.floor((ULY - y) / FIELD_M)
    return 0.02 + 0.4 * np.modf(np.abs(np.sin(field * 7.1 + NAMES.index(name) * 2.3)) * 43.7)[0]


def by_key(key: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same by the key of a Sentinel-2 band."""
    return reflectance(NAME_OF[key], x, y)


def far_from_rims(x: NDArray[np.float64], y: NDArray[np.float64], *, metres: float) -> NDArray[np.bool_]:
    """Where no other field lies within ``metres``: there an interpolated band is the field's own."""
    across, down = (x - ULX) % FIELD_M, (ULY - y) % FIELD_M
    inside = [(part >= metres) & (part <= FIELD_M - metres) for part in (across, down)]
    return np.asarray(inside[0] & inside[1], dtype=np.bool_)
