"""A made-up scene of any size, and networks that were trained on it for some seconds: what benchmarks map.

Classes overlap: noise is larger than what tells their spectra apart in a band, so that a good part of the pixels is
near a decision and shares of agreement mean something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from pipeline.grid import Grid, Window
from pipeline.legend import ClassScheme, LandClass
from pipeline.model.bundle import ModelBundle
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.settings import SceneOptions
from pipeline.training.networks import network_specs
from pipeline.training.settings import TrainingSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

BANDS, CLASSES = 10, 8
NAMES = tuple(f"layer{i}" for i in range(BANDS))
# Digital numbers: a spectrum that all classes share, and what each adds to it.
_RNG = np.random.default_rng(7)
_SPECTRA = _RNG.uniform(800.0, 3000.0, (1, BANDS)) + _RNG.normal(0.0, 300.0, (CLASSES, BANDS))
_NOISE = 500.0
_CELL = 24


def landscape(path: Path, *, side_px: int) -> Scene:
    """A scene of cells with the spectra of classes; one piece of 2048 pixels, mirrored, fills large ones."""
    grid = Grid(CRS.from_epsg(32633), Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), side_px, side_px)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": BANDS, "nodata": 0, "crs": grid.crs}
    profile |= {"transform": grid.transform, "height": side_px, "width": side_px, "num_threads": "all_cpus"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    piece_px = min(side_px, 2048)
    piece = pixels(Window(0, 0, piece_px, piece_px))[0].astype(np.uint16)
    with rasterio.open(path, "w", **profile) as target:
        for window in grid.tiles(piece_px):
            turned = piece[:, :: -1 if window.row // piece_px % 2 else 1, :: -1 if window.col // piece_px % 2 else 1]
            target.write(turned[:, : window.height, : window.width], window=window.to_rasterio())
    return open_geotiff(path, options=SceneOptions(bands=NAMES, scale=1e-4, offset=0.0))


# A ResNet-18 U-Net as others build it: five stages, no path of single pixels; and what a job trains by default.
PLAIN = (NetworkSpec(BANDS, CLASSES, spectral_channels=0, dropout=0.0),)
DEFAULT = tuple(
    spec for spec in network_specs(TrainingSettings(), bands_in=BANDS, classes=CLASSES, chip_px=64) if spec is not None
)
# What a job trains where pretrained weights fit its scene: the network of pixels and an encoder to stride 8, of the
# ResNet that ships or of ukis-csmask's two (of six bands and of four); both members are run.
TUNED = {
    name: (DEFAULT[0], replace(DEFAULT[0], **encoder, depth=3, columns=True))
    for name, encoder in {
        "resnet": {"encoder": "resnet18"},
        "csmask": {"encoder": "efficientnet_b4", "branches": 2},
    }.items()
}


def trained_bundle(
    specs: tuple[NetworkSpec, ...] = DEFAULT, *, names: tuple[str, ...] = NAMES, steps: int = 60
) -> ModelBundle:
    """Networks that were trained for some seconds, for bands of other names if asked."""
    torch.manual_seed(0)
    preprocess = Preprocess.from_statistics(bands=names, mean=[0.2] * BANDS, std=[0.12] * BANDS)
    members = []
    for spec in specs:
        network = build_network(spec).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for step in range(steps):
            windows = [Window(64 * step, 64 * number, 64, 64) for number in range(4)]
            pairs = [pixels(window) for window in windows]
            chips = torch.stack([chip(preprocess, values) for values, _ in pairs])
            loss = torch.nn.functional.cross_entropy(
                network(chips), torch.stack([torch.from_numpy(c) for _, c in pairs])
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        members.append(network.eval().requires_grad_(requires_grad=False))
    scheme = ClassScheme(tuple(LandClass(i + 1, f"class {i}", "#336699") for i in range(CLASSES)))
    ranges, units = ((0.0, 1.0),) * BANDS, ("DN",) * BANDS
    return ModelBundle(tuple(members), scheme, preprocess, ranges, units, gsd_m=10.0)


def pixels(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """DN float32 [band, row, col] and classes int64 [row, col]: cells of random classes, wavy edges, noise."""
    rows, cols = np.mgrid[window.row : window.row_stop, window.col : window.col_stop]
    rows, cols = rows + (6 * np.sin(cols / 9.0)).astype(int), cols + (6 * np.sin(rows / 7.0)).astype(int)
    classes = ((rows // _CELL) * 2654435761 + (cols // _CELL) * 40503 >> 7) % CLASSES
    noise = np.random.default_rng((abs(window.row), abs(window.col))).normal(0.0, _NOISE, (BANDS, *window.shape))
    return np.clip(_SPECTRA[classes].transpose(2, 0, 1) + noise, 1, 10000).astype(np.float32), classes.astype(np.int64)


def chip(preprocess: Preprocess, values: np.ndarray) -> torch.Tensor:
    return preprocess(values * np.float32(1e-4), np.ones(values.shape[1:], dtype=np.bool_))
