"""``landcover predict`` as a user calls it, beside TorchGeo's loop, each in a process of its own, in CPU seconds.

``LANDCOVER_BENCH_PX=6144 python -m tests.benchmarks mapping --seconds 3600`` maps one scene of ten bands with models
that were trained for some seconds: a plain ResNet-18 U-Net, a network of pixels as a job trains it, and the same beside
a fine-tuned encoder (the ResNet that ships, or ukis-csmask's two), both members run. TorchGeo's loop is that of its
tutorials: a RasterDataset, a GridGeoSampler with overlap, a U-Net of segmentation_models_pytorch in float32, the class
of each pixel written to a GeoTIFF. User and system time count, not the clock, from a process's first import to its last
file: ratios hold on a busy machine too. Then agreements of the default network under other settings.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import torch

from pipeline.inference.engine import Choice, fast_bfloat16
from pipeline.inference.measure import class_agreement, sample_of
from pipeline.inference.plan import engine_of, total_stride_px
from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.model.bundle import ModelBundle, save_bundle
from pipeline.scenes.scene import Scene
from tests.benchmarks.landscape import BANDS, CLASSES, DEFAULT, NAMES, PLAIN, TUNED, landscape, pixels, trained_bundle

SIDE_PX = int(os.environ.get("LANDCOVER_BENCH_PX", "1024"))
ROOT = Path(__file__).parents[2]
SEEN_PX, STRIDE_PX, TOGETHER = 512, 448, 4
# Of the pixels' network and the fine-tuned one in the average: any that run both.
SHARES = (0.6, 0.4)


def run(side_px: int = SIDE_PX) -> dict[str, float]:
    """Ratios and figures of one run."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = landscape(folder / "scene.tif", side_px=side_px)
        bundles = {"plain": trained_bundle(PLAIN), "default": trained_bundle(DEFAULT)}
        bundles |= {f"tuned_{name}": replace(trained_bundle(specs), shares=SHARES) for name, specs in TUNED.items()}
        peer = measured("torchgeo", scene.path, str(folder / "torchgeo.tif"))
        figures |= {f"torchgeo_{key}": value for key, value in peer.items()}
        for kind, bundle in bundles.items():
            save_bundle(folder / f"{kind}.safetensors", bundle)
            found = measured("landcover", scene.path, str(folder / kind), str(folder / f"{kind}.safetensors"))
            figures |= {f"{kind}_{key}": value for key, value in found.items()}
            figures[f"{kind}_over_torchgeo"] = found["cpu_s"] / peer["cpu_s"]
        small = landscape(folder / "small.tif", side_px=min(side_px, 768))
        figures |= agreements(bundles["default"], small, folder)
        for kind, bundle in bundles.items():
            figures |= engine_agreements(bundle, small, kind=kind)
    print({key: round(value, 5) for key, value in figures.items()}, flush=True)
    return figures


def measured(kind: str, *arguments: str) -> dict[str, float]:
    """CPU seconds and rate of a process that maps."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tests.benchmarks.bench_mapping", kind, *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    with rasterio.open(arguments[0]) as dataset:
        mpx = dataset.width * dataset.height / 1e6
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{kind} {Path(arguments[-1]).stem}: {seconds:.1f} CPU seconds, {mpx:.1f} Mpx", flush=True)
    return {"cpu_s": seconds, "mpx_per_cpu_s": mpx / seconds}


def landcover(scene: str, out: str, model: str) -> None:
    """The command line."""
    from pipeline.cli.entry import main

    facts = [f"--set=scene.bands={','.join(NAMES)}", "--set=scene.scale=0.0001", "--set=scene.offset=0"]
    if main(["predict", "--model", model, "--scene", scene, "-o", out, "--overwrite", *facts]):
        sys.exit(1)


def torchgeo(scene: str, out: str) -> None:
    """Map a scene as TorchGeo's tutorials do; the network is not trained, which takes as long."""
    import segmentation_models_pytorch as smp
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    dataset = RasterDataset(scene)
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=BANDS, classes=CLASSES).eval()
    loader = DataLoader(
        dataset, batch_size=TOGETHER, sampler=GridGeoSampler(dataset, size=SEEN_PX, stride=STRIDE_PX),
        collate_fn=stack_samples,
    )  # fmt: skip
    margin = (SEEN_PX - STRIDE_PX) // 2
    with rasterio.open(scene) as source:
        profile = source.profile | {"count": 1, "dtype": "uint8", "nodata": 0}
        inverse = ~source.transform
    with rasterio.open(out, "w", **profile) as target, torch.inference_mode():
        for batch in loader:
            codes = network(batch["image"].float() * 1e-4).argmax(1).byte().numpy() + 1
            for one, bounds in zip(codes, batch["bounds"], strict=True):
                col, row = (round(value) for value in inverse @ (bounds[0].start, bounds[1].stop))
                inner = one[margin:-margin, margin:-margin]  # the sampler's last row and column reach beyond the scene
                above, left = max(-row, 0), max(-col, 0)
                inner = inner[above : profile["height"] - row, left : profile["width"] - col]
                window = rasterio.windows.Window(col + left, row + above, inner.shape[1], inner.shape[0])
                target.write(inner[None], window=window)


def agreements(bundle: ModelBundle, scene: Scene, folder: Path) -> dict[str, float]:
    """Shares of pixels with the same class under other settings."""
    asked = MapSettings(dtype="float32", device="cpu", tile_px=256)

    def codes(name: str, **changes: object) -> np.ndarray:
        settings = asked.model_copy(update=changes)
        with predict_scene(bundle, scene, out=folder / name, settings=settings) as mapped:
            return mapped.codes.read(scene.grid.window)

    first = codes("first")
    return {
        "agreement_tile_384": float((codes("tile", tile_px=384) == first).mean()),
        "agreement_batch_3": float((codes("batch", batch=3) == first).mean()),
        "identical_again": float(_identical(bundle, scene, folder, asked)),
        "accuracy_of_codes": float((first == pixels(scene.grid.window)[1] + 1).mean()),
        "valid_share": float((first != 0).mean()),
    }


def _identical(bundle: ModelBundle, scene: Scene, folder: Path, asked: MapSettings) -> bool:
    """Whether two runs from the start, in two folders, leave the same bytes in every store."""
    made = []
    for name in ("one", "two"):
        with predict_scene(bundle, scene, out=folder / name, settings=asked) as mapped:
            made.append({layer: store.path.read_bytes() for layer, store in mapped.layers.items()})
    return made[0] == made[1]


def engine_agreements(bundle: ModelBundle, scene: Scene, *, kind: str) -> dict[str, float]:
    """Share of pixels that other types and OpenVINO, where it is installed, give the class of torch in float32."""
    from importlib.util import find_spec

    choices = [Choice(dtype="bfloat16")]
    if find_spec("openvino") and find_spec("onnxruntime"):
        choices += [Choice("openvino", dtype) for dtype in ("float32", "bfloat16", "int8")]
    sample = sample_of(bundle, scene, total_stride_px(bundle))
    plain = engine_of(bundle, Choice(), threads=1)
    found = {
        f"{kind}_{choice.engine}_{choice.dtype}_agreement": class_agreement(
            engine_of(bundle, choice, threads=1, source=scene), plain, sample
        )
        for choice in choices
    }
    return found | {"bfloat16_is_fast_here": float(fast_bfloat16("cpu"))}


if __name__ == "__main__":
    if sys.argv[1:]:
        {"landcover": landcover, "torchgeo": torchgeo}[sys.argv[1]](*sys.argv[2:])
    else:
        run()
