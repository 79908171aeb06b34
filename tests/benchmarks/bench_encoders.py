"""Pretrained encoders, frozen, on EuroSAT: what they know of land cover beside chip statistics.

``python -m tests.benchmarks.bench_encoders``: mean and deviation over the chip of each feature at strides 2, 4, 8, a
linear discriminant with shrunk covariance, five stratified folds, the mean of three partitions; alone and with the
statistics of the chip (``pipeline.model.surroundings``, 13 bands). The encoder that ships was not trained on EuroSAT.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.bands import common_name
from pipeline.model.encoder import build_encoder
from pipeline.model.pretrained import PretrainedEncoder, SceneBands, search_encoders
from pipeline.model.records import OWN_NAME, libraries_records, shipped_records
from pipeline.model.spec import NetworkSpec
from pipeline.model.surroundings import chip_statistics
from tests.benchmarks.bench_chips import EUROSAT_BANDS, SHARED, folds_of

BANDS = tuple(common_name(name, sensor="sentinel-2") for name in EUROSAT_BANDS)
SUBSETS = {
    "optical": BANDS,
    "6 bands": ("blue", "green", "red", "nir", "swir16", "swir22"),
    "4 bands": ("blue", "green", "red", "nir"),
}
PARTITIONS, FOLDS = 3, 5


def main() -> int:
    for name, value in run().items():
        print(f"{name:60} {value:.3f}")
    return 0


def run() -> dict[str, float]:
    """Overall accuracy of each encoder alone and with statistics; seconds to see the 270 chips."""
    if not SHARED.exists():
        return {}
    parts = next(iter(folds_of("eurosat, folds")))
    values = torch.from_numpy(np.concatenate([part.values for part in parts]))
    classes = np.concatenate([part.index for part in parts])
    spread = (values - values.mean((0, 2, 3), keepdim=True)) / values.std((0, 2, 3), keepdim=True)
    beside = chip_statistics(spread.clamp(-8, 8), chip_px=64, stride_px=64).flatten(1).numpy()
    figures = {"statistics of 13 bands": accuracy(beside, classes)}
    for name, used, encoder in encoders(values):
        start = time.perf_counter()
        chips = values[:, [BANDS.index(band) for band in used]]
        table = np.concatenate([moments(encoder.features(part)) for part in chips.split(30)])
        figures[f"{name} s"] = time.perf_counter() - start
        figures[f"{name} alone"] = accuracy(table, classes)
        figures[f"{name} and statistics"] = accuracy(np.hstack([table, beside]), classes)
    return figures


def encoders(values: torch.Tensor):
    """Name, bands and encoder: packages' with gates of each chip and fixed, ours, a random one, those in the hub."""
    for record in (item for item in shipped_records() if item.cache.is_file()):
        own = record.name == OWN_NAME
        for label, used in SUBSETS.items() if own else [(f"{len(record.bands)} bands", record.bands)]:
            (found,) = search_encoders(SceneBands(tuple(used), "sentinel-2"), weights=record.name).encoders
            yield f"{record.name}, {label}", used, found
            if not own:
                chips = values[::6, [BANDS.index(band) for band in used]]
                yield f"{record.name}, {label}, gates fixed", used, found.calibrated(chips)
            elif label == "6 bands":
                yield f"random resnet18, {label}", used, shuffled(found)
    statistics = tuple(part.tolist() for part in (values.mean((0, 2, 3)), values.std((0, 2, 3))))
    for record in libraries_records():
        if record.cache.is_file() and set(record.bands) <= set(BANDS) and record.architecture.startswith("resnet"):
            facts = SceneBands(tuple(BANDS), statistics=statistics)
            yield record.name, BANDS, search_encoders(facts, weights=record.name).encoders[0]


def shuffled(encoder: PretrainedEncoder) -> PretrainedEncoder:
    """The same architecture with random weights."""
    torch.manual_seed(0)
    network = build_encoder(NetworkSpec(len(encoder.bands), 2, depth=len(encoder.strides))).eval()
    return PretrainedEncoder(encoder.record, encoder.loaded, encoder.given, encoder.bands, network)


def moments(features: list[torch.Tensor]) -> np.ndarray:
    """Mean and deviation over the chip of each feature [chip, feature]."""
    return torch.cat([part for f in features for part in (f.mean((2, 3)), f.std((2, 3)))], dim=1).numpy()


def accuracy(table: np.ndarray, classes: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    folds = (StratifiedKFold(FOLDS, shuffle=True, random_state=seed) for seed in range(PARTITIONS))
    return float(np.mean([(cross_val_predict(model, table, classes, cv=cv) == classes).mean() for cv in folds]))


if __name__ == "__main__":
    raise SystemExit(main())
