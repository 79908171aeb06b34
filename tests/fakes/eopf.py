"""A Sentinel-2 product in the Zarr of EOPF: groups, attributes and arrays as in real ones, without a compressor."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.fakes.safe import ramp

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NAME = "S2B_MSIL{level}_20250530T101559_N0511_R065_T33UUU_20250530T130924"
LEFT, TOP = 399_960.0, 5_800_020.0
GROUPS = {10: ("b02", "b03", "b04", "b08"), 20: ("b05", "b06", "b07", "b8a", "b11", "b12"), 60: ("b01", "b09")}


@dataclass(frozen=True)
class Eopf:
    """What to fake."""

    level: str = "2A"
    size_m: int = 1200
    scale: float = 1e-4
    offset: float = -0.1
    apart: bool = False
    crs: dict[str, Any] = field(
        default_factory=lambda: {"other_metadata": {"horizontal_CRS_code": "EPSG:32633"}, "stac_discovery": {}}
    )
    cloud_px: int = 0


def write_eopf(folder: Path, what: Eopf | None = None) -> Path:
    """Write a product and give its folder."""
    what = what or Eopf()
    root = folder / f"{NAME.format(level=what.level)}.zarr"
    metadata: dict[str, Any] = {".zattrs": what.crs, ".zgroup": {"zarr_format": 2}}
    for metres, keys in GROUPS.items():
        group = f"measurements/reflectance/r{metres}m"
        x, y = _centres(what, metres)
        for key in keys:
            dn = np.round((ramp(key.upper(), *np.meshgrid(x, y)) - what.offset) / what.scale).astype("<u2")
            scaling = {"scale_factor": what.scale, "add_offset": what.offset}
            about = {"_eopf_attrs": scaling} if what.apart else scaling
            _write(root, f"{group}/{key}", dn, ["y", "x"], metadata, about=about)
        _write_axes(root, group, x, y, metadata)
    _write_mask(root, what, metadata)
    (root / ".zmetadata").write_text(json.dumps({"zarr_consolidated_format": 1, "metadata": metadata}))
    return root


def _centres(what: Eopf, metres: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    steps = (np.arange(what.size_m // metres) + 0.5) * metres
    return LEFT + steps, TOP - steps


def _write_mask(root: Path, what: Eopf, metadata: dict[str, Any]) -> None:
    metres, group, key = (20, "l2a_classification/r20m", "scl")
    about: dict[str, Any] = {}
    if what.level == "1C":
        metres, group, key = (60, "l1c_classification/r60m", "b00")
        about = {"flag_masks": [1, 2, 4], "flag_meanings": "OPAQUE CIRRUS SNOW_ICE"}
    x, y = _centres(what, metres)
    codes = np.full((len(y), len(x)), 0 if what.level == "1C" else 4, dtype="u1")
    codes[: what.cloud_px, : what.cloud_px] = 1 if what.level == "1C" else 9
    _write(root, f"conditions/mask/{group}/{key}", codes, ["y", "x"], metadata, about=about)
    _write_axes(root, f"conditions/mask/{group}", x, y, metadata)


def _write_axes(
    root: Path, group: str, x: NDArray[np.float64], y: NDArray[np.float64], metadata: dict[str, Any]
) -> None:
    for name, values in (("x", x), ("y", y)):
        _write(root, f"{group}/{name}", values.astype("<i8"), [name], metadata, about={})
    (root / group / ".zgroup").write_text('{"zarr_format": 2}')


def _write(
    root: Path, name: str, values: NDArray[Any], dims: list[str], metadata: dict[str, Any], *, about: dict[str, Any]
) -> None:
    (root / name).mkdir(parents=True)
    array = {
        "zarr_format": 2, "shape": list(values.shape), "chunks": list(values.shape), "dtype": values.dtype.str,
        "compressor": None, "fill_value": 0, "order": "C", "filters": None, "dimension_separator": ".",
    }  # fmt: skip
    for part, content in ((".zarray", array), (".zattrs", about | {"_ARRAY_DIMENSIONS": dims})):
        (root / name / part).write_text(json.dumps(content))
        metadata[f"{name}/{part}"] = content
    (root / name / ".".join("0" * values.ndim)).write_bytes(values.tobytes())
