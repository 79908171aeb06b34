"""A whole job on annual embeddings: learned as they are, mapped, and refused for another encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from pipeline.errors import PipelineError
from pipeline.model.bundle import load_bundle
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.predict import predict_maps
from tests.fakes.finished import run_job
from tests.fakes.small_world import SIDE, quick_training, truth, write_scene, write_world

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = tuple(f"A{number:02d}" for number in range(64))


def embeddings() -> NDArray[np.int8]:
    """A direction for each class and some noise, int8 [band, row, col]; the first row is no data."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(3, 64)).astype(np.float32)
    values = directions[truth()].transpose(2, 0, 1) + rng.normal(0, 0.3, (64, SIDE, SIDE))
    values /= np.linalg.norm(values, axis=0)
    stored = np.rint(np.sign(values) * np.sqrt(np.abs(values)) * 127.5).clip(-127, 127).astype(np.int8)
    stored[:, 0] = -128
    return stored


def test_a_job_on_embeddings_learns_the_bands_alone(tmp_path: Path) -> None:
    training = quick_training() | {"context": {"enabled": False}}
    config = write_world(tmp_path, training=training)
    write_scene(tmp_path / "scene.tif", embeddings(), names=NAMES, nodata=-128)
    run_job(config, last="predict")
    bundle = load_bundle(tmp_path / "run" / "model" / "model.safetensors")
    assert set(bundle.units) == {"alphaearth"}
    assert not bundle.members[0].spec.surroundings
    with rasterio.open(tmp_path / "run" / "maps" / "scene_lc.tif") as file:
        codes = file.read(1)
    assert (codes[0] == 0).all()
    assert (codes[1:] == truth()[1:] + 1).mean() > 0.97
    floats = np.random.default_rng(1).normal(0, 1, (64, SIDE, SIDE)).astype(np.float32)
    with rasterio.open(write_scene(tmp_path / "other.tif", floats, names=NAMES), "r+") as file:
        for number in range(1, 65):
            file.set_band_description(number, f"Tessera_Band_{number}")
        file.update_tags(TESSERA_DATASET_VERSION="1.0")
    with pytest.raises(PipelineError, match="scene lacks band a00"):
        predict_maps(
            None, model=tmp_path / "run" / "model" / "model.safetensors", scenes=[str(tmp_path / "other.tif")],
            output=tmp_path / "maps", changes=[], force=False, overwrite=False, progress=no_progress,
        )  # fmt: skip
