"""What does the area of applicability cost beside the map itself?

Both are taken in one run, on the same scene with the same model: only their ratio means something on a machine that
does other work too. ``memory_ratio`` is the Python memory (NumPy's; torch's is not traced) of the layer on a scene of
four times the pixels over that on the small one: near 1, as only tiles are held.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.diagnostics.applicability import TRAINING_PIXELS, learn_distance, write_applicability
from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.labels.rasterise import LabelledPixels
from pipeline.model.bundle import ModelBundle
from pipeline.scenes.scene import Scene
from pipeline.splits.split import Split, TrainingScene
from pipeline.workflow.outcome import no_progress
from tests.benchmarks.landscape import CLASSES, landscape, trained_bundle

SIDE_PX = int(os.environ.get("LANDCOVER_BENCH_PX", "1024"))


def run(side_px: int = SIDE_PX) -> dict[str, float]:
    """Seconds per megapixel of both, their ratio, and how memory grows with the scene."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = landscape(folder / "large.tif", side_px=side_px)
        small = landscape(folder / "small.tif", side_px=side_px // 2)
        bundle = _with_training(trained_bundle(), small)
        mapping, layer, _ = _both(bundle, large, folder, traced=False)
        peaks = [_both(bundle, scene, folder, traced=True)[2] for scene in (small, large)]
    mpx = side_px**2 / 1e6
    return {
        "map_s_per_mpx": mapping / mpx,
        "layer_s_per_mpx": layer / mpx,
        "layer_over_map": layer / mapping,
        "memory_ratio": peaks[1] / peaks[0],
    }


def _with_training(bundle: ModelBundle, scene: Scene) -> ModelBundle:
    """The model with features of pixels spread over a scene, as if they were labelled."""
    height, width = scene.grid.shape
    key = np.sort(np.random.default_rng(0).choice(height * width, 2 * TRAINING_PIXELS, replace=False))
    row, col = (part.astype(np.int32) for part in divmod(key, width))
    polygon = row // 64 * (width // 64 + 1) + col // 64 + 1
    code = (polygon % CLASSES + 1).astype(np.uint8)
    pixels = LabelledPixels(row, col, code, polygon, np.ones(len(row), dtype=np.uint8), scene.grid)
    count = int(polygon.max()) + 1
    split = Split(np.zeros(count, dtype=np.int8), (np.arange(count) % 8).astype(np.int32), 640.0, 0.0)
    found = learn_distance(bundle, [TrainingScene(scene, pixels)], split, polygons=pixels.polygon_ids(), seed=0)
    assert found is not None
    return replace(bundle, extra=found.tensors())


def _both(bundle: ModelBundle, scene: Scene, folder: Path, *, traced: bool) -> tuple[float, float, int]:
    """Seconds of the map and of the layer, and the peak of traced bytes of the layer."""
    asked = MapSettings(engine="torch", dtype="float32", device="cpu")
    work = folder / f"work-{scene.id}-{traced}"
    start = time.perf_counter()
    with predict_scene(bundle, scene, out=work, settings=asked) as mapped:
        middle = time.perf_counter()
        if traced:
            tracemalloc.start()
        write_applicability(
            folder / f"{scene.id}_aoa.tif", bundle, scene, codes=mapped.codes, work=work, tags={}, overwrite=True,
            progress=no_progress,
        )  # fmt: skip
        end = time.perf_counter()
        peak = tracemalloc.get_traced_memory()[1] if traced else 0
        tracemalloc.stop()
        mapped.remove()
    return middle - start, end - middle, peak


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
