"""A process that maps a scene slowly, to be killed: ``python -m tests.inference.mapping_process SCENE OUT BLEND``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pipeline.inference import stream
from pipeline.inference.plan import PredictSettings
from pipeline.inference.predict import predict_scene
from pipeline.scenes.geotiff import open_geotiff
from tests.inference.models import small_bundle


def settings(blend: str) -> PredictSettings:
    return PredictSettings(
        engine="torch", dtype="float32", device="cpu", threads=1, tile_px=32, halo_px=8, batch=2, blend=blend
    )


def main(scene: str, out: str, blend: str) -> None:
    stream.SYNC_SECONDS = 0.0
    real = stream.Writing.put

    def put(self: stream.Writing, *args: object) -> None:
        time.sleep(0.02)
        real(self, *args)

    stream.Writing.put = put
    predict_scene(small_bundle(), open_geotiff(Path(scene)), out=Path(out), settings=settings(blend)).close()


if __name__ == "__main__":
    main(*sys.argv[1:])
