"""A model and scenes of the small kind, and the command line's function on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.model.bundle import save_bundle
from pipeline.workflow.outcome import Outcome
from pipeline.workflow.predict import predict_maps
from tests.inference.models import changes, noise_scene, small_bundle


@dataclass(frozen=True)
class World:
    """A folder with a model and scenes ``s0.tif``, ``s1.tif`` ...; and how they are mapped."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def scenes(self) -> Path:
        return self.folder / "scenes"

    def add_scene(self, name: str, *, height: int = 200, width: int = 160) -> Path:
        self.scenes.mkdir(exist_ok=True)
        path = self.scenes / f"{name}.tif"
        noise_scene(path, height=height, width=width, seed=len(list(self.scenes.iterdir())))
        return path

    def predict(self, out: str, *, listed: Path | None = None, overwrite: bool = False, **asked: object) -> Outcome:
        dask = asked.pop("dask", None)
        return predict_maps(
            None,
            model=self.model,
            output=self.folder / out,
            changes=changes(**({"dtype": "float32"} | asked)),
            overwrite=overwrite,
            listed=str(listed or self.scenes),
            dask=dask,
        )

    def products(self, out: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.folder / out).glob("*.*")) if path.is_file()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    save_bundle(tmp_path / "model.safetensors", small_bundle())
    return World(tmp_path)
