"""What the network sees: features of labelled pixels in two dimensions, as figures and as points to select in QGIS."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.maps.style import categorised, qml, scheme_categories
from pipeline.maps.vectors import PackageLayer, write_geopackage

if TYPE_CHECKING:
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

Method = Literal["pca", "tsne", "umap"]
FEATURE_PIXELS = 1500
# Fewer points than this show nothing.
_LEAST_POINTS = 10
# van der Maaten & Hinton (2008), J. Mach. Learn. Res. 9, 2579-2605: perplexity 5 to 50; 30 is scikit-learn's choice.
PERPLEXITY = 30.0
PCA_FIRST = 50  # the same paper, sect. 4.2: PCA to 30-50 dimensions before t-SNE
# Feature space is no place on Earth; QGIS opens an engineering CRS without asking and without reprojecting.
_PLANE = 'LOCAL_CS["feature space",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'


@dataclass(frozen=True, eq=False)
class Features:
    """Network features of labelled pixels in two dimensions."""

    code: NDArray[np.uint8]  # [point]
    pca: NDArray[np.float32]  # [point, 2]
    tsne: NDArray[np.float32]  # [point, 2]
    explained: tuple[float, float]  # Share of variance of the two principal components


def embed(features: NDArray[np.floating], *, method: Method = "pca", seed: int = 0) -> NDArray[np.float64]:
    """Two coordinates float64 [point, 2] of features float [point, feature], standardised before.

    PCA keeps large distances and is quick; t-SNE and UMAP keep neighbours, and distances between their groups mean
    nothing.

    Raises:
        ConfigError: UMAP without the package umap-learn.
    """
    values = np.asarray(features, dtype=np.float64)
    spread = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    from sklearn.decomposition import PCA

    if method == "pca":
        return np.asarray(PCA(2, random_state=seed).fit_transform(scaled))
    if method == "umap":
        return _umap(scaled, seed)
    from sklearn.manifold import TSNE

    if scaled.shape[1] > PCA_FIRST:
        scaled = PCA(min(PCA_FIRST, *scaled.shape), random_state=seed).fit_transform(scaled)
    perplexity = min(PERPLEXITY, (len(scaled) - 1) / 3)
    return np.asarray(
        TSNE(2, perplexity=perplexity, random_state=seed, init="pca").fit_transform(scaled), dtype=np.float64
    )


def _umap(scaled: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """UMAP of standardised features; McInnes et al. (2018), its authors' default of 15 neighbours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it speaks of TensorFlow, which is not needed
        try:
            from umap import UMAP
        except ImportError as err:
            raise ConfigError("UMAP needs the package umap-learn", fix="pip install landcover-pipeline[umap]") from err
        mapper = UMAP(n_neighbors=min(15, len(scaled) - 1), random_state=seed, n_jobs=1)
        return np.asarray(mapper.fit_transform(scaled), dtype=np.float64)


def spread(pixels: LabelledPixels, count: int, *, seed: int) -> LabelledPixels:
    """At most ``count`` pixels, classes alike."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(pixels), dtype=np.bool_)
    codes = np.unique(pixels.code)
    for code in codes:
        own = np.flatnonzero(pixels.code == code)
        mask[rng.permutation(own)[: max(count // len(codes), 1)]] = True
    return pixels.select(mask)


def write_features(
    path: Path, bundle: ModelBundle, scenes: Sequence[tuple[Source, LabelledPixels]],
    *, umap: bool = False, seed: int = 0, overwrite: bool = False,
) -> Features | None:  # fmt: skip
    """Write labelled pixels with their coordinates by every method: on the map, and in feature space.

    The layer ``places`` has the points on the map with the coordinates of every method as fields, one layer per method
    has them in feature space. All share the field ``id``, so a selection in one is ``"id" IN (...)`` in the other, and
    are drawn in the colours of their classes. Nothing is written (None) for fewer than ten valid pixels.

    Raises:
        OutputError: the file exists or cannot be written.
        ConfigError: UMAP is asked for and not installed.
    """
    from pipeline.inference.probe import network_features

    chosen, values = [], []
    for source, pixels in scenes:
        own = spread(pixels, FEATURE_PIXELS // len(scenes), seed=seed)
        found, position = network_features(bundle, source, own)
        mask = np.zeros(len(own), dtype=np.bool_)
        mask[position] = True
        chosen.append(own.select(mask))
        values.append(found[np.argsort(position)])
    table = np.concatenate(values)
    if len(table) < _LEAST_POINTS:
        return None
    methods: tuple[Method, ...] = ("pca", "tsne", "umap") if umap else ("pca", "tsne")
    planes = {method: embed(table, method=method, seed=seed) for method in methods}
    code = np.concatenate([pixels.code for pixels in chosen])
    fields = {
        "polygon": np.concatenate([pixels.polygon for pixels in chosen]),
        "scene": np.repeat([source.id for source, _ in scenes], [len(pixels) for pixels in chosen]),
    }
    layers = embedding_layers(
        planes, xy=_places(chosen), code=code, crs=chosen[0].grid.crs.to_wkt(), scheme=bundle.scheme, fields=fields
    )
    write_geopackage(path, layers, what="the features", overwrite=overwrite)
    drawn = {method: plane.astype(np.float32) for method, plane in planes.items()}
    return Features(code, drawn["pca"], drawn["tsne"], explained(table, planes["pca"]))


def embedding_layers(
    planes: Mapping[Method, NDArray[np.floating]],
    *, xy: tuple[NDArray[np.float64], NDArray[np.float64]], code: NDArray[np.integer], crs: str, scheme: ClassScheme,
    fields: Mapping[str, NDArray[Any]] | None = None,
) -> list[PackageLayer]:  # fmt: skip
    """The layers of :func:`write_features`: ``places`` at ``xy`` on the map, and coordinates [point, 2] per method."""
    import geopandas

    names = {item.code: item.name for item in scheme.classes}
    columns = {
        "id": np.arange(1, len(code) + 1, dtype=np.int32),
        "code": np.asarray(code, dtype=np.int32),
        "class": [names.get(int(value), "") for value in code],
        **(fields or {}),
    }
    style = qml(categorised("class", scheme_categories(scheme, by_name=True), shape="marker"))
    coordinates = {f"{method}_{axis + 1}": plane[:, axis] for method, plane in planes.items() for axis in (0, 1)}
    places = geopandas.GeoDataFrame(columns | coordinates, geometry=geopandas.points_from_xy(*xy), crs=crs)
    flat = {
        method: geopandas.GeoDataFrame(columns, geometry=geopandas.points_from_xy(*plane.T), crs=_PLANE)
        for method, plane in planes.items()
    }
    return [
        PackageLayer("places", places, style),
        *(PackageLayer(method, frame, style) for method, frame in flat.items()),
    ]


def explained(table: NDArray[np.floating], plane: NDArray[np.floating]) -> tuple[float, float]:
    """Shares of the variance of features [point, feature], standardised, that two principal components have."""
    varying = int(np.count_nonzero(table.std(axis=0)))
    first, second = plane.var(axis=0) / max(varying, 1)
    return float(first), float(second)


def _places(chosen: Sequence[LabelledPixels]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel centres of all scenes in the CRS of the first."""
    import geopandas

    centres = []
    for pixels in chosen:
        to_map = pixels.grid.transform
        x, y = to_map.c + to_map.a * (pixels.col + 0.5), to_map.f + to_map.e * (pixels.row + 0.5)
        points = geopandas.GeoSeries(geopandas.points_from_xy(x, y), crs=pixels.grid.crs.to_wkt())
        centres.append(points.to_crs(chosen[0].grid.crs.to_wkt()))
    return np.concatenate([part.x for part in centres]), np.concatenate([part.y for part in centres])
