"""Mapping whole scenes against the bare network, a plain stitching loop, and itself with other settings.

``LANDCOVER_BENCH_PX=10980 python -m tests.benchmarks mapping --seconds 3600`` prints the whole table: 2048, 4096 and a
Sentinel-2 tile of 10980 pixels, with a plain ResNet-18 U-Net and with the default network, in float32 and, where the
machine computes in it, in bfloat16; ``LANDCOVER_BENCH_DEVICE=cuda`` does so on a GPU. ``bare`` is the network as torch
runs it (batch norms folded, channels-last, calls side by side as scenes are mapped) at its best tile size, nothing read
or written; ``engine`` is the same for what maps here, which is faster than that; both are timed before and after each
run, since only ratios mean something on a busy machine. Then rates, shares of both, a plain loop, peak memory of
fresh processes and the estimate of it. ``accuracy_of_codes`` says how hard the classes are to tell apart. The engine is
fixed: timing decides nothing but the rates.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
import torch

from pipeline.grid import Window
from pipeline.inference.demand import demand, total_stride_px
from pipeline.inference.engine import Choice, Engine, fast_bfloat16, torch_dtype
from pipeline.inference.engines import engine_of
from pipeline.inference.memory import WORKERS, footprint
from pipeline.inference.plan import PredictSettings
from pipeline.inference.predict import predict_scene
from pipeline.inference.samples import sample_of
from pipeline.inference.seams import seam_figure
from pipeline.inference.trials import calibrate, candidates, time_passes
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.style import CONFIDENCE
from pipeline.model.bundle import ModelBundle, load_bundle, save_bundle
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.scene import Scene
from pipeline.scenes.settings import SceneOptions
from tests.benchmarks.landscape import BANDS, DEFAULT, NAMES, PLAIN, landscape, pixels, trained_bundle

SIDE_PX = int(os.environ.get("LANDCOVER_BENCH_PX", "1024"))
DEVICE = os.environ.get("LANDCOVER_BENCH_DEVICE", "cpu")
DTYPES = ("float32", "bfloat16") if fast_bfloat16(DEVICE) else ("float32",)


def run(side_px: int = SIDE_PX) -> dict[str, float]:
    """Ratios and figures of one run."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundles = {"plain": trained_bundle(PLAIN), "default": trained_bundle(DEFAULT)}
        sides = sorted({side for side in (2048, 4096) if side < side_px} | {side_px})
        for side in sides:
            scene = landscape(folder / f"scene{side}.tif", side_px=side)
            for kind, bundle in bundles.items():
                for dtype in DTYPES:
                    row_name = f"{kind}_{dtype}_{side}"
                    row = rates(bundle, scene, folder / row_name, choice=Choice(dtype=dtype, device=DEVICE))
                    _say(f"{kind} {dtype}", side, row)
                    figures |= {f"{row_name}_{key}": value for key, value in row.items()}
        for kind, dtype in itertools.product(bundles, DTYPES):
            peaks = [figures[f"{kind}_{dtype}_{side}_peak_mb"] for side in sides]
            figures[f"{kind}_{dtype}_peak_ratio_of_largest_to_next"] = peaks[-1] / peaks[-2] if peaks[1:] else 1.0
        small = landscape(folder / "small.tif", side_px=min(side_px, 768))
        halo = int(figures[f"default_float32_{sides[0]}_halo_px"])
        more = agreements(bundles["default"], small, folder, halo_px=halo)
        for kind, bundle in bundles.items():
            more |= {f"{kind}_agreement_bfloat16": _bfloat16_agreement(bundle, small)}
            more |= engines(bundle, small, kind=kind)
    print({key: round(value, 5) for key, value in more.items()}, flush=True)
    return figures | more


_COLUMNS = (
    "bare", "engine", "ours", "share", "share_of_engine", "halo_factor", "loop", "seconds", "products_s", "peak_mb",
    "estimate", "tile_px",
)  # fmt: skip
_HEAD = False


def _say(kind: str, side: int, row: dict[str, float]) -> None:
    """One line of the table, as soon as it is known."""
    global _HEAD  # noqa: PLW0603 - the head is printed once
    if not _HEAD:
        print(f"{'network':16} {'pixels':>6} " + " ".join(f"{name:>15}" for name in _COLUMNS), flush=True)
        _HEAD = True
    print(f"{kind:16} {side:6} " + " ".join(f"{row[name]:15.4g}" for name in _COLUMNS), flush=True)


def rates(bundle: ModelBundle, scene: Scene, folder: Path, *, choice: Choice) -> dict[str, float]:
    """The pipeline, in a process of its own, and a plain loop, as shares of the bare network at its best tile size."""
    engines = {
        "bare": _AsItIs(bundle, choice),
        "engine": engine_of(bundle, choice, threads=torch.get_num_threads()),
    }
    sides = (512, 1024) if choice.device == "cpu" else (1024, 2048)
    first = {name: {side: _bare(engine, side) for side in sides} for name, engine in engines.items()}
    best = {name: max(found, key=lambda side: found[side]) for name, found in first.items()}
    ours = _in_process(save_bundle(folder.with_suffix(".safetensors"), bundle), Path(scene.path), folder, choice=choice)
    after = {name: _bare(engine, best[name]) for name, engine in engines.items()}
    rate = {name: (first[name][best[name]] + after[name]) / 2 for name in engines}
    loop = _stitching_loop(bundle, scene)
    tile, halo = int(ours["tile_px"]), int(ours["halo_px"])
    wanted = demand(bundle, scene, choice=choice, halo=halo, blended=False)
    side = min(tile, max(scene.grid.shape))
    cache = int(ours["cache_bytes"])
    estimate = footprint(wanted, tile_px=side, on_gpu=choice.device != "cpu", cache_bytes=cache).total
    return rate | {
        "ours": ours["mpx_per_s"],
        "share": ours["mpx_per_s"] / rate["bare"],
        "share_of_engine": ours["mpx_per_s"] / rate["engine"],
        # The halo is work that the network must do: pixels that it sees for each that is written.
        "halo_factor": ours["read_px"] / ours["write_px"],
        # The part of the time in which the engine could have done nothing; on a GPU: in which it waits.
        "engine_waits": 1.0 - ours["read_px"] / 1e6 / rate["engine"] / ours["seconds"],
        "loop": loop,
        "loop_share": loop / rate["bare"],
        "seconds": ours["seconds"],
        # Class map and confidence as they are written: COG, overviews, names, counts, style. The goal is below 0.15.
        "products_s": ours["products_seconds"],
        "products_share_of_mapping": ours["products_seconds"] / ours["seconds"],
        "peak_mb": ours["peak_bytes"] / 1e6,
        "estimate": estimate / ours["peak_bytes"],
        "tile_px": float(tile),
        "halo_px": float(halo),
    }


def _in_process(model: Path, scene: Path, out: Path, *, choice: Choice) -> dict[str, float]:
    """Figures of a fresh process that maps a scene: rate and peak memory are its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_mapping", str(model), str(scene), str(out)]
    command += [choice.dtype, choice.device]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    return json.loads((out / "figures.json").read_text())


def child(model: str, path: str, out: str, dtype: str, device: str) -> None:
    """Map one scene, write its products, and the figures of this process."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    scene = open_geotiff(path, options=SceneOptions(bands=NAMES, scale=1e-4, offset=0.0))
    asked = PredictSettings(engine="torch", dtype=dtype, device=device)
    folder = Path(out)
    with predict_scene(load_bundle(model), scene, out=folder, settings=asked) as mapped:
        # Not getrusage: a process that was started by a larger one begins with that one's peak.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        start = time.perf_counter()
        write_class_map(folder / "a_lc.tif", mapped.codes, grid=mapped.grid, scheme=mapped.scheme)
        write_percent(folder / "a_conf.tif", mapped.confidence, grid=mapped.grid, layer=CONFIDENCE)
        plan, products = mapped.plan, time.perf_counter() - start
    tiles = plan.tiles(scene.grid)
    figures = mapped.figures | {
        "products_seconds": products,
        "peak_bytes": int(status["VmHWM"].split()[0]) * 1024,
        "read_px": sum(tile.read.height * tile.read.width for tile in tiles),
        "write_px": sum(tile.write.height * tile.write.width for tile in tiles),
        "tile_px": plan.tile_px,
        "halo_px": plan.halo_px,
        "cache_bytes": plan.cache_bytes,
    }
    (folder / "figures.json").write_text(json.dumps(figures))


def agreements(bundle: ModelBundle, scene: Scene, folder: Path, *, halo_px: int) -> dict[str, float]:
    """Shares of pixels with the same class under other settings, and the seam figure."""
    asked = PredictSettings(engine="torch", dtype="float32", device="cpu", tile_px=256, halo_px=halo_px)

    def codes(name: str, settings: PredictSettings) -> np.ndarray:
        with predict_scene(bundle, scene, out=folder / name, settings=settings) as mapped:
            return mapped.codes.read(scene.grid.window)

    first = codes("first", asked)
    figures = {
        "agreement_tile_384": float((codes("tile", replace(asked, tile_px=384)) == first).mean()),
        "agreement_batch_3": float((codes("batch", replace(asked, batch=3)) == first).mean()),
        "agreement_hann": float((codes("hann", replace(asked, blend="hann")) == first).mean()),
        "identical_again": float(_identical(bundle, scene, folder, asked)),
        "accuracy_of_codes": float((first == pixels(scene.grid.window)[1] + 1).mean()),
        "valid_share": float((first != 0).mean()),
    }
    with predict_scene(bundle, scene, out=folder / "first", settings=asked) as mapped:
        seams = seam_figure(bundle, scene, mapped, out=folder / "seams", settings=asked)
    figures |= {"seam": seams.seam, "seam_noise": seams.noise, "agreement_shifted_tiles": seams.agreement}
    return figures | {"bfloat16_is_fast_here": float(fast_bfloat16("cpu"))}


def _identical(bundle: ModelBundle, scene: Scene, folder: Path, asked: PredictSettings) -> bool:
    """Whether two runs from the start, in two folders, leave the same bytes in every store."""
    made = []
    for name in ("one", "two"):
        with predict_scene(bundle, scene, out=folder / name, settings=asked, fresh=True) as mapped:
            if mapped.figures["tiles_before"]:
                raise RuntimeError("the run was not fresh")
            made.append({layer: store.path.read_bytes() for layer, store in mapped.layers.items()})
    return made[0] == made[1]


def engines(bundle: ModelBundle, scene: Scene, *, kind: str) -> dict[str, float]:
    """What ``auto`` measures: each engine's rate as a multiple of torch's in float32, and its agreement with it."""
    threads, stride = torch.get_num_threads(), total_stride_px(bundle)
    choices = candidates(engine="auto", dtype="auto", device="cpu")
    sample = sample_of(bundle, scene, stride)
    trials = calibrate(
        lambda choice: engine_of(bundle, choice, threads=threads, source=scene),
        choices,
        sample,
        threads=threads,
        stride_px=stride,
        repeats=3,
    )
    named = {f"{kind}_{trial.choice.engine}_{trial.choice.dtype}": trial for trial in trials[1:]}
    rates = {f"{name}_rate_over_torch": trials[0].s_per_mpx / trial.s_per_mpx for name, trial in named.items()}
    return rates | {f"{name}_agreement": trial.agreement for name, trial in named.items()}


class _AsItIs:
    """The network as torch runs it: an engine that adds nothing."""

    def __init__(self, bundle: ModelBundle, choice: Choice) -> None:
        self.choice, self._dtype = choice, torch_dtype(choice.dtype)
        network = bundle.network(fused=True).to(choice.device, self._dtype)
        self._network = network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        moved = chips.to(self.choice.device, self._dtype)
        return self._network(moved.contiguous(memory_format=torch.channels_last))


def _bare(engine: Engine, side: int, *, seconds: float = 4.0) -> float:
    """Mpx per second of the network alone as scenes are mapped, tiles side by side; median of some seconds' passes."""
    chips = torch.randn(1, BANDS, WORKERS * side, side, device=engine.choice.device)
    if engine.choice.device != "cpu":
        return _bare_on_gpu(engine, chips[..., :side, :], seconds=seconds)
    passes, stop = [], time.perf_counter() + seconds
    while not passes or time.perf_counter() < stop:
        made = time_passes(engine, engine.choice, chips, threads=torch.get_num_threads(), stride_px=side, repeats=2)
        passes.append(made[1])
    return WORKERS * side * side / 1e6 / median(passes)


def _bare_on_gpu(engine: Engine, chips: torch.Tensor, *, seconds: float) -> float:
    """Mpx per second of the network on data that is there; ten passes at a time, as launching them takes time too."""
    engine(chips)
    passes, stop = [], time.perf_counter() + seconds / 4
    while not passes or time.perf_counter() < stop:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            engine(chips)
        torch.cuda.synchronize()
        passes.append((time.perf_counter() - start) / 10)
    return chips.shape[-2] * chips.shape[-1] / 1e6 / median(passes)


def _stitching_loop(bundle: ModelBundle, scene: Scene) -> float:
    """What a user writes first: read a tile with overlap, run, argmax, paste into an array. Mpx per second."""
    network, height, width = bundle.network(), *scene.grid.shape
    codes = np.zeros((height, width), dtype=np.uint8)
    start, done = time.perf_counter(), 0
    with rasterio.open(scene.path) as dataset, torch.inference_mode():
        for window in scene.grid.tiles(256):
            read = window.expand(32)
            values = dataset.read(window=read.to_rasterio(), boundless=True).astype(np.float32) * np.float32(1e-4)
            chip = bundle.preprocess(values, np.ones(values.shape[1:], dtype=np.bool_))
            shares = network(chip[None]).softmax(1)[0, :, 32:-32, 32:-32]
            codes[window.slices] = shares.argmax(0).numpy()[: window.height, : window.width] + 1
            done += window.height * window.width
            if time.perf_counter() - start > 10.0:
                break
    return done / 1e6 / (time.perf_counter() - start)


def _bfloat16_agreement(bundle: ModelBundle, scene: Scene) -> float:
    # Emulated bfloat16 is right but slow: a part of the scene is enough for its agreement.
    side = 512 if fast_bfloat16("cpu") else 256
    with scene.open() as reader:
        raster = reader.read(Window(64, 64, side, side))
    chips = bundle.preprocess(raster.values, raster.valid)[None]
    made = [engine_of(bundle, Choice(dtype=kind), threads=torch.get_num_threads()) for kind in ("float32", "bfloat16")]
    plain, short = (engine(chips).argmax(1) for engine in made)
    return float((plain == short).float().mean())


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else run()
