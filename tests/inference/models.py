"""Models and scenes that are made on the spot: an identity network, and small networks with random weights."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from pipeline.grid import Grid
from pipeline.legend import ClassScheme, LandClass
from pipeline.model.bundle import ModelBundle
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.scenes.geotiff import open_geotiff

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.model.network import Network
    from pipeline.scenes.scene import Scene


def scheme(classes: int) -> ClassScheme:
    return ClassScheme(tuple(LandClass(3 * i + 1, f"class {i}", "#112233") for i in range(classes)))


@cache
def _networks(spec: NetworkSpec, members: int, seed: int) -> tuple[Network, ...]:
    torch.manual_seed(seed)
    networks = tuple(build_network(spec).eval() for _ in range(members))
    for network in networks:
        torch.nn.init.normal_(network.head.weight, std=0.5)
        network.requires_grad_(requires_grad=False)
    return networks


def bundle_of(spec: NetworkSpec, *, members: int = 1, seed: int = 0, temperature: float = 1.0) -> ModelBundle:
    """Random weights are drawn once: a copy takes a twentieth of the time."""
    networks = deepcopy(_networks(spec, members, seed))
    names = tuple(f"noise{i}" for i in range(1, spec.bands_in + 1))
    return ModelBundle(
        members=networks,
        scheme=scheme(spec.classes),
        preprocess=Preprocess(names, (0.0,) * spec.bands_in, (1.0,) * spec.bands_in, clip=0.0),
        value_range=((-6.0, 6.0),) * spec.bands_in,
        units=("DN",) * spec.bands_in,
        gsd_m=10.0,
        temperature=temperature,
    )


def identity_bundle(classes: int) -> ModelBundle:
    """Band k is the score of class k: a one-hot scene comes back as its own classes."""
    spec = NetworkSpec(classes, classes, encoder="none", spectral_channels=classes, spectral_kernels=(1,), dropout=0.0)
    bundle = bundle_of(spec)
    network = bundle.members[0]
    assert network.spectral is not None
    eye = torch.eye(classes)[:, :, None, None]
    network.spectral[0][0].weight.copy_(eye)
    network.head.weight.copy_(20.0 * eye)
    torch.nn.init.zeros_(network.head.bias)
    return bundle


def small_bundle(*, bands: int = 3, classes: int = 4, members: int = 1, seed: int = 0) -> ModelBundle:
    """A shallow U-Net with a stride of 4."""
    spec = NetworkSpec(
        bands, classes, depth=2, stem_stride=4, decoder_channels=(8, 8, 8), spectral_channels=8, dropout=0.0
    )
    return bundle_of(spec, members=members, seed=seed)


def grid_of(height: int, width: int) -> Grid:
    return Grid(CRS.from_epsg(32633), Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), height, width)


def write_scene(path: Path, values: NDArray[np.float32], *, nodata: float = -9999.0, block: int = 64) -> Scene:
    """A GeoTIFF of values float32 [band, row, col]; NaN becomes nodata."""
    grid = grid_of(*values.shape[1:])
    profile = {"tiled": True, "blockxsize": block, "blockysize": block} if min(grid.shape) >= block else {}
    with rasterio.open(
        path, "w", driver="GTiff", dtype="float32", count=len(values), nodata=nodata, crs=grid.crs,
        transform=grid.transform, height=grid.height, width=grid.width, **profile,
    ) as target:  # fmt: skip
        target.write(np.nan_to_num(values, nan=nodata))
        target.descriptions = tuple(f"noise{i}" for i in range(1, len(values) + 1))
    return open_geotiff(path)


def changes(**asked: object) -> list[str]:
    """Settings of mapping as the command line takes them."""
    return [f"map.{key}={value}" for key, value in asked.items()]


def one_hot(classes: NDArray[np.int64], *, count: int) -> NDArray[np.float32]:
    """Class indices [row, col] -> float32 [class, row, col]; -1 is no observation (NaN)."""
    values = (np.arange(count)[:, None, None] == classes).astype(np.float32)
    values[:, classes < 0] = np.nan
    return values


def noise_scene(path: Path, *, height: int, width: int, bands: int = 3, seed: int = 1) -> Scene:
    """Smooth noise with a wedge of nodata in the lower right corner."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(bands, height // 8 + 2, width // 8 + 2))
    values = np.kron(coarse, np.ones((1, 8, 8)))[:, :height, :width] + 0.3 * rng.normal(size=(bands, height, width))
    rows, cols = np.mgrid[:height, :width]
    values[:, rows / height + cols / width > 1.8] = np.nan
    return write_scene(path, values.astype(np.float32))
