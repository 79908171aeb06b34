"""A small model and a scene that fits it."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from pipeline.grid import Grid
from pipeline.legend import scheme_for
from pipeline.model.bundle import ModelBundle, TrainedOn
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.scenes.scene import Scene
from pipeline.scenes.sources import BandSource


@pytest.fixture
def bundle() -> ModelBundle:
    """Two members, three classes, reflectance."""
    torch.manual_seed(0)
    small = {"depth": 2, "decoder_channels": (8,), "spectral_channels": 8}
    preprocess = Preprocess.from_statistics(bands=("red", "nir"), mean=[0.1, 0.3], std=[0.05, 0.1])
    return ModelBundle(
        members=(build_network(NetworkSpec(2, 3, **small)), build_network(NetworkSpec(2, 3, encoder="none"))),
        scheme=scheme_for(["water", "trees", "crops"])[0],
        preprocess=preprocess,
        value_range=((0, 0.6), (0, 0.8)),
        units=("reflectance", "reflectance"),
        gsd_m=10,
        shares=(0.75, 0.25),
        temperature=1.5,
        sources=(TrainedOn("sentinel-2", "L2A", "05.09", "S2A_T33"),),
        provenance={"seed": 1, "trained_utc": "2026-01-01T00:00:00+00:00"},
        extra={"forest.threshold": torch.arange(3.0)},
    )


@pytest.fixture
def make_scene(tmp_path):
    """A function that writes a scene of two bands; values are reflectance x factor."""

    def make(*, factor=1.0, bands=("nir", "red"), level="L2A", sensor="sentinel-2", pixel_m=10.0, valid=True) -> Scene:
        rng = np.random.default_rng(0)
        values = rng.normal([[[0.3]], [[0.1]]], 0.05, (2, 60, 70)).clip(0.01).astype(np.float32) * factor
        if not valid:
            values[:] = np.nan
        path = tmp_path / "scene.tif"
        transform, crs = Affine(pixel_m, 0, 500_000, 0, -pixel_m, 5_000_000), CRS.from_epsg(32633)
        profile = {"driver": "GTiff", "count": 2, "height": 60, "width": 70, "dtype": "float32"}
        with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as file:
            file.write(values)
        sources = tuple(BandSource(name, str(path), index=i) for i, name in enumerate(bands, 1))
        return Scene("scene", str(path), Grid(crs, transform, 60, 70), sources, sensor=sensor, level=level)

    return make
