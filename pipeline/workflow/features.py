"""What the network sees of labelled pixels: two coordinates by PCA, t-SNE and UMAP, as points to select in QGIS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rasterio.warp import transform

from pipeline.diagnostics.features import embed, write_embeddings
from pipeline.report.data import Features

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.diagnostics.features import Method
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.workflow.job import Job

FEATURE_PIXELS = 1500
FILE = "features.gpkg"
# Fewer points than this show nothing.
_LEAST_POINTS = 10


def spread(pixels: LabelledPixels, count: int, *, seed: int) -> LabelledPixels:
    """At most ``count`` pixels, classes alike."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(pixels), dtype=np.bool_)
    codes = np.unique(pixels.code)
    for code in codes:
        own = np.flatnonzero(pixels.code == code)
        mask[rng.permutation(own)[: max(count // len(codes), 1)]] = True
    return pixels.select(mask)


def write_features(job: Job, folder: Path, *, overwrite: bool) -> tuple[Features, Path] | None:
    """``features.gpkg``: labelled pixels with their coordinates by every method; and what the report draws of them.

    The layer ``places`` has the points on the map, one layer per method has them in feature space; all share ``id``.
    Nothing is written (None) where fewer than ten labelled pixels are valid.

    Raises:
        OutputError: the file exists or cannot be written.
        ConfigError: UMAP is asked for and not installed.
    """
    from pipeline.inference.probe import pixel_features
    from pipeline.model.bundle import load_bundle

    bundle = load_bundle(job.model_path)
    chosen, values = [], []
    for source, pixels in zip(job.sources, job.pixels, strict=True):
        own = spread(pixels, FEATURE_PIXELS // len(job.sources), seed=job.config.training.seed)
        found, position = pixel_features(bundle, source, own)
        mask = np.zeros(len(own), dtype=np.bool_)
        mask[position] = True
        chosen.append(own.select(mask))
        values.append(found[np.argsort(position)])
    table = np.concatenate(values)
    if len(table) < _LEAST_POINTS:
        return None
    methods: tuple[Method, ...] = ("pca", "tsne", "umap") if job.config.assessment.umap else ("pca", "tsne")
    planes = {method: embed(table, method=method, seed=job.config.training.seed) for method in methods}
    row, col = _on_first_grid(job, chosen)
    code = np.concatenate([pixels.code for pixels in chosen])
    scene = [source.id for source, pixels in zip(job.sources, chosen, strict=True) for _ in range(len(pixels))]
    write_embeddings(
        folder / FILE, planes, row=row, col=col, class_code=code, grid=job.sources[0].grid, scheme=job.scheme,
        fields={"polygon": np.concatenate([pixels.polygon for pixels in chosen]), "scene": np.array(scene)},
        overwrite=overwrite,
    )  # fmt: skip
    drawn = {method: plane.astype(np.float32) for method, plane in planes.items()}
    return Features(code, drawn["pca"], drawn["tsne"], explained(table, planes["pca"])), folder / FILE


def explained(table: NDArray[np.floating], plane: NDArray[np.floating]) -> tuple[float, float]:
    """Shares of the variance of features [point, feature], standardised, that two principal components have."""
    varying = int(np.count_nonzero(table.std(axis=0)))
    first, second = plane.var(axis=0) / max(varying, 1)
    return float(first), float(second)


def _on_first_grid(job: Job, chosen: list[LabelledPixels]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of pixel centres of all scenes in the pixels of the first, also between and beyond them."""
    first = job.sources[0].grid
    rows, cols = [], []
    for source, pixels in zip(job.sources, chosen, strict=True):
        row, col = pixels.row.astype(np.float64), pixels.col.astype(np.float64)
        grid = source.grid
        if grid != first and len(pixels):
            here, there = grid.transform, first.transform
            x, y = transform(grid.crs, first.crs, here.c + here.a * (col + 0.5), here.f + here.e * (row + 0.5))
            col, row = (np.asarray(x) - there.c) / there.a - 0.5, (np.asarray(y) - there.f) / there.e - 0.5
        rows.append(row)
        cols.append(col)
    return np.concatenate(rows), np.concatenate(cols)
