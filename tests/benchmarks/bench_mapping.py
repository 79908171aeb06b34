"""Mapping a whole scene against the bare network, a plain stitching loop, and itself with other settings.

``LANDCOVER_BENCH_PX=10980 python -m tests.benchmarks mapping --seconds 7200`` maps a whole Sentinel-2 tile; 2048 and
4096 lie between. Classes overlap: noise is larger than what tells their spectra apart in a band, so that a good part of
the pixels is near a decision and shares of agreement mean something (``accuracy_of_codes`` says how hard it is). The
engine is fixed: timing decides nothing but the rates. All rates are taken in one run, the bare network's before and
after each pipeline run: only their ratios mean something on a machine that does other work too.
"""

from __future__ import annotations

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
from affine import Affine
from rasterio.crs import CRS

from pipeline.grid import Grid, Window
from pipeline.inference.engine import Choice, fast_bfloat16
from pipeline.inference.memory import footprint
from pipeline.inference.plan import PredictSettings, demand, engine_of, total_stride_px
from pipeline.inference.predict import Prediction, predict_scene
from pipeline.inference.seams import seam_figure
from pipeline.legend import ClassScheme, LandClass
from pipeline.maps.geotiff import write_class_map, write_confidence
from pipeline.model.bundle import ModelBundle, load_bundle, save_bundle
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.scenes.geotiff import Interpretation, open_geotiff
from pipeline.scenes.scene import Scene

BANDS, CLASSES = 10, 8
SIDE_PX = int(os.environ.get("LANDCOVER_BENCH_PX", "1024"))
# Digital numbers: a spectrum that all classes share, and what each adds to it.
_RNG = np.random.default_rng(7)
_SPECTRA = _RNG.uniform(800.0, 3000.0, (1, BANDS)) + _RNG.normal(0.0, 300.0, (CLASSES, BANDS))
_NOISE = 500.0
_CELL = 24


def run(side_px: int = SIDE_PX) -> dict[str, float]:
    """Ratios and figures of one run."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = trained_bundle()
        scene = landscape(folder / "scene.tif", side_px=side_px)
        figures = rates(bundle, scene, folder)
        _say(figures)
        small = landscape(folder / "small.tif", side_px=min(side_px, 768))
        _say(more := agreements(bundle, small, folder, halo_px=int(figures["halo_px"])))
        _say(peaks := memory(bundle, folder, side_px=side_px))
    return figures | more | peaks


def _say(figures: dict[str, float]) -> None:
    for key, value in figures.items():
        print(f"{key}: {value:.4g}", flush=True)  # noqa: T201 - a benchmark reports


def rates(bundle: ModelBundle, scene: Scene, folder: Path) -> dict[str, float]:
    """The pipeline and a plain loop as shares of the bare network at its best tile size."""
    engine = engine_of(bundle, Choice(), threads=torch.get_num_threads())
    asked = PredictSettings(engine="torch", dtype="float32", device="cpu")
    bare = {side: _bare(engine, side) for side in (256, 512, 1024)}
    best = max(bare, key=lambda side: bare[side])
    ours, net, shares = [], [bare[best]], []
    for number in range(2):
        with predict_scene(bundle, scene, out=folder / "rates", settings=asked, fresh=True) as mapped:
            ours.append(mapped.figures["mpx_per_s"])
            shares.append(_products_seconds(mapped, folder, number) / mapped.figures["seconds"])
        net.append(_bare(engine, best))
    loop = _stitching_loop(bundle, scene)
    net.append(_bare(engine, best))
    plan = mapped.plan
    tile, side = plan.tile_px, plan.tile_px + 2 * plan.halo_px
    return {
        "scene_mpx": mapped.figures["mpx"],
        **{f"bare_{side}px_mpx_per_s": rate for side, rate in bare.items()},
        "bare_best_mpx_per_s": median(net),
        "pipeline_mpx_per_s": median(ours),
        "pipeline_share_of_bare": median(ours) / median(net),
        # The halo is work that the network must do: what the rest of the pipeline costs is seen without it.
        "pipeline_share_of_bare_halo_included": median(ours) / median(net) * (side / tile) ** 2,
        "stitching_loop_share_of_bare": loop / median(net),
        # Class map and confidence as they are written: COG, overviews, names, counts, style. The goal is below 0.15.
        "products_share_of_mapping": median(shares),
        "tile_px": float(tile),
        "halo_px": float(plan.halo_px),
    }


def _products_seconds(mapped: Prediction, folder: Path, number: int) -> float:
    """Seconds of writing the two products of every map."""
    start = time.perf_counter()
    write_class_map(folder / f"a{number}_lc.tif", mapped.codes, grid=mapped.grid, scheme=mapped.scheme)
    write_confidence(folder / f"a{number}_confidence.tif", mapped.confidence, grid=mapped.grid)
    return time.perf_counter() - start


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
        "accuracy_of_codes": float((first == _pixels(scene.grid.window)[1] + 1).mean()),
        "valid_share": float((first != 0).mean()),
    }
    # Emulated bfloat16 is right but slow: a quarter of the scene is enough for its agreement.
    with predict_scene(bundle, scene, out=folder / "first", settings=asked) as mapped:
        seams = seam_figure(bundle, scene, mapped, out=folder / "seams", settings=asked)
    figures |= {"seam": seams.seam, "seam_noise": seams.noise, "agreement_shifted_tiles": seams.agreement}
    figures["bfloat16_is_fast_here"] = float(fast_bfloat16("cpu"))
    figures["agreement_bfloat16"] = _bfloat16_agreement(bundle, scene)
    return figures


def _identical(bundle: ModelBundle, scene: Scene, folder: Path, asked: PredictSettings) -> bool:
    """Whether two runs from the start, in two folders, leave the same bytes in every store."""
    made = []
    for name in ("one", "two"):
        with predict_scene(bundle, scene, out=folder / name, settings=asked, fresh=True) as mapped:
            if mapped.figures["tiles_before"]:
                raise RuntimeError("the run was not fresh")
            made.append({layer: store.path.read_bytes() for layer, store in mapped.layers.items()})
    return made[0] == made[1]


def memory(bundle: ModelBundle, folder: Path, *, side_px: int) -> dict[str, float]:
    """Peak memory of fresh processes that map scenes of two sizes in tiles of two sizes, and of the estimate."""
    model = save_bundle(folder / "model.safetensors", bundle)
    figures, peaks = {}, {}
    for side in (side_px // 2, side_px):
        for tile in (256, 512):
            # Nodata is read, written and skipped by the network: memory is what a full scene needs, in less time.
            scene = landscape(folder / f"memory{side}.tif", side_px=side, seen_px=tile)
            out = folder / f"memory{side}-{tile}"
            peaks[side, tile] = _peak_bytes(model, Path(scene.path), out, tile=tile)
            halo = int(json.loads((out / "figures.json").read_text())["halo_px"])
            wanted = demand(bundle, scene, dtype=torch.float32, halo=halo, blended=False)
            estimate = footprint(wanted, tile_px=min(tile, side)).total
            figures[f"peak_mb_{side}px_tile_{tile}"] = peaks[side, tile] / 1e6
            figures[f"estimate_over_measured_{side}px_tile_{tile}"] = estimate / peaks[side, tile]
    return figures | {"peak_ratio": peaks[side_px, 512] / peaks[side_px // 2, 512]}


def landscape(path: Path, *, side_px: int, seen_px: int | None = None) -> Scene:
    """A scene of cells with the spectra of classes; nodata right of and below ``seen_px``."""
    grid = Grid(CRS.from_epsg(32633), Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), side_px, side_px)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": BANDS, "nodata": 0, "crs": grid.crs}
    profile |= {"transform": grid.transform, "height": side_px, "width": side_px}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    with rasterio.open(path, "w", **profile) as target:
        for window in grid.tiles(512):
            values = _pixels(window)[0]
            if seen_px is not None and (window.row >= seen_px or window.col >= seen_px):
                values[:] = 0
            target.write(values.astype(np.uint16), window=window.to_rasterio())
    names = tuple(f"layer{i}" for i in range(BANDS))
    return open_geotiff(path, told=Interpretation(bands=names, scale=1e-4, offset=0.0))


def trained_bundle(*, steps: int = 60) -> ModelBundle:
    """The default ensemble (spectra, and a ResNet-18 U-Net of three stages), trained for some seconds."""
    torch.manual_seed(0)
    specs = (
        NetworkSpec(BANDS, CLASSES, encoder="none", spectral_kernels=(3, 1, 1), dropout=0.0),
        NetworkSpec(BANDS, CLASSES, depth=3, stem_stride=2, spectral_kernels=(3, 1), dropout=0.0),
    )
    names = tuple(f"layer{i}" for i in range(BANDS))
    preprocess = Preprocess.from_statistics(bands=names, mean=[0.2] * BANDS, std=[0.12] * BANDS)
    members = []
    for spec in specs:
        network = build_network(spec).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for step in range(steps):
            windows = [Window(64 * step, 64 * number, 64, 64) for number in range(4)]
            pairs = [_pixels(window) for window in windows]
            chips = torch.stack([_chip(preprocess, values) for values, _ in pairs])
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


def _pixels(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """DN float32 [band, row, col] and classes int64 [row, col]: cells of random classes, wavy edges, noise."""
    rows, cols = np.mgrid[window.row : window.row_stop, window.col : window.col_stop]
    rows, cols = rows + (6 * np.sin(cols / 9.0)).astype(int), cols + (6 * np.sin(rows / 7.0)).astype(int)
    classes = ((rows // _CELL) * 2654435761 + (cols // _CELL) * 40503 >> 7) % CLASSES
    noise = np.random.default_rng((abs(window.row), abs(window.col))).normal(0.0, _NOISE, (BANDS, *window.shape))
    return np.clip(_SPECTRA[classes].transpose(2, 0, 1) + noise, 1, 10000).astype(np.float32), classes.astype(np.int64)


def _chip(preprocess: Preprocess, values: np.ndarray) -> torch.Tensor:
    return preprocess(values * np.float32(1e-4), np.ones(values.shape[1:], dtype=np.bool_))


def _bare(engine: object, side: int, *, seconds: float = 3.0) -> float:
    """Mpx per second of the network alone, best of passes within some seconds."""
    chips = torch.randn(1, BANDS, side, side)
    engine(chips)  # type: ignore[operator]
    passes, stop = [], time.perf_counter() + seconds
    while not passes or time.perf_counter() < stop:
        start = time.perf_counter()
        engine(chips)  # type: ignore[operator]
        passes.append(time.perf_counter() - start)
    return side * side / 1e6 / median(passes)


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
            if time.perf_counter() - start > 20.0:
                break
    return done / 1e6 / (time.perf_counter() - start)


def _bfloat16_agreement(bundle: ModelBundle, scene: Scene) -> float:
    side = 256 // total_stride_px(bundle) * total_stride_px(bundle)
    with scene.open() as reader:
        raster = reader.read(Window(64, 64, side, side))
    chips = bundle.preprocess(raster.values, raster.valid)[None]
    made = [engine_of(bundle, Choice(dtype=kind), threads=torch.get_num_threads()) for kind in ("float32", "bfloat16")]
    plain, short = (engine(chips).argmax(1) for engine in made)
    return float((plain == short).float().mean())


def _peak_bytes(model: Path, scene: Path, out: Path, *, tile: int) -> int:
    command = [sys.executable, "-m", "tests.benchmarks.bench_mapping", str(model), str(scene), str(out), str(tile)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    return int(json.loads((out / "figures.json").read_text())["peak_bytes"])


def child(model: str, path: str, out: str, tile: str) -> None:
    """Map one scene and write the peak memory of this process."""
    names = tuple(f"layer{i}" for i in range(BANDS))
    scene = open_geotiff(path, told=Interpretation(bands=names, scale=1e-4, offset=0.0))
    asked = PredictSettings(engine="torch", dtype="float32", device="cpu", tile_px=int(tile))
    mapped: Prediction
    with predict_scene(load_bundle(model), scene, out=Path(out), settings=asked) as mapped:
        # Not getrusage: a process that was started by a larger one begins with that one's peak.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = int(status["VmHWM"].split()[0]) * 1024
    text = json.dumps({"peak_bytes": peak, "halo_px": mapped.plan.halo_px})
    (Path(out) / "figures.json").write_text(text)


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else run()
