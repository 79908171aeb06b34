"""A mapping that takes its time, to be killed: started in a process of its own."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import torch

from pipeline.inference import stream
from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.scenes.geotiff import open_geotiff
from tests.inference.models import small_bundle

PAUSE_S = 0.03
# Each process is a fork of one that has imported this: collections leave it alone.
gc.freeze()


def settings() -> MapSettings:
    return MapSettings(engine="torch", dtype="float32", device="cpu", threads=1, tile_px=32, halo_px=8, batch=2)


def main(scene: str, out: str, started: object) -> None:
    torch.set_num_threads(1)
    stream.SYNC_SECONDS = 0.0
    real = stream.Writing.put

    def put(self: stream.Writing, *args: object) -> None:
        time.sleep(PAUSE_S)
        real(self, *args)

    stream.Writing.put = put
    bundle, opened = small_bundle(), open_geotiff(Path(scene))
    started.set()
    predict_scene(bundle, opened, out=Path(out), settings=settings()).close()
