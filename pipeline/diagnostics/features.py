"""What the network sees: its features in two dimensions, as figures and as points to select in QGIS."""

from __future__ import annotations

import sqlite3
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import ConfigError, OutputError, ReferenceDataError
from pipeline.maps.style import categorised, qml, scheme_categories
from pipeline.maps.vectors import add_layer_style

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme

Method = Literal["pca", "tsne", "umap"]
METHODS: tuple[Method, ...] = ("pca", "tsne", "umap")
# van der Maaten & Hinton (2008), J. Mach. Learn. Res. 9, 2579-2605: perplexity 5 to 50; 30 is scikit-learn's choice.
PERPLEXITY = 30.0
PCA_FIRST = 50  # the same paper, sect. 4.2: PCA to 30-50 dimensions before t-SNE


def embed(features: NDArray[np.floating], *, method: Method = "pca", seed: int = 0) -> NDArray[np.float64]:
    """Two coordinates float64 [point, 2] of features float [point, feature], standardised before.

    PCA keeps large distances and is quick; t-SNE and UMAP keep neighbours, and distances between their groups mean
    nothing.

    Raises:
        ReferenceDataError: fewer than 3 points, or values that are not finite.
        ConfigError: UMAP without the package umap-learn.
    """
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 3 or not np.isfinite(values).all():  # noqa: PLR2004 - two axes need 3 points
        raise ReferenceDataError("features to embed", got=values.shape, expected="finite [point, feature], 3 or more")
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


def write_embeddings(
    path: Path,
    embeddings: Mapping[Method, NDArray[np.floating]],
    *,
    row: NDArray[np.integer] | NDArray[np.floating],
    col: NDArray[np.integer] | NDArray[np.floating],
    class_code: NDArray[np.integer],
    grid: Grid,
    scheme: ClassScheme,
    fields: Mapping[str, NDArray[Any]] | None = None,
    overwrite: bool = False,
) -> None:
    """Write points with their 2-D coordinates: layer ``places`` on the map, one layer per method in feature space.

    All are drawn in the colours of their classes.

    All layers share the field ``id``, so a selection in one is ``"id" IN (...)`` in the other, and ``places`` carries
    the coordinates of every method as fields.

    Args:
        path: GeoPackage to write.
        embeddings: float [point, 2] of each method.
        row: [point]; rows of ``grid``, whole ones for its own pixels.
        col: [point].
        class_code: int [point].
        grid: Where rows and columns lie.
        scheme: Names of the codes.
        fields: Further fields of all layers, [point] each, by name.
        overwrite: Replace an existing file.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    import geopandas

    if path.exists() and not overwrite:
        raise OutputError("file exists", path=path, fix="pass --overwrite")
    path.unlink(missing_ok=True)
    a = grid.transform
    known = {item.code: item.name for item in scheme.classes}
    columns = {
        "id": np.arange(1, len(row) + 1, dtype=np.int32),
        "code": np.asarray(class_code, dtype=np.int32),
        "class": [known.get(int(code), "") for code in class_code],
        **(fields or {}),
    }
    places = geopandas.points_from_xy(a.c + a.a * (np.asarray(col) + 0.5), a.f + a.e * (np.asarray(row) + 0.5))
    frame = geopandas.GeoDataFrame(columns, geometry=places, crs=grid.crs.to_wkt())
    for method, xy in embeddings.items():
        frame[f"{method}_1"], frame[f"{method}_2"] = xy[:, 0], xy[:, 1]
    try:
        frame.to_file(path, layer="places", driver="GPKG", engine="pyogrio")
        for method, xy in embeddings.items():
            plane = geopandas.GeoDataFrame(columns, geometry=geopandas.points_from_xy(xy[:, 0], xy[:, 1]), crs=_PLANE)
            plane.to_file(path, layer=method, driver="GPKG", engine="pyogrio")
        style = qml(categorised("class", scheme_categories(scheme, by_name=True), shape="marker"))
        for layer in ("places", *embeddings):
            add_layer_style(path, layer=layer, style=style)
    except (OSError, sqlite3.Error) as err:
        raise OutputError("points cannot be written", path=path, got=err) from err


# Feature space is no place on Earth; QGIS opens an engineering CRS without asking and without reprojecting.
_PLANE = 'LOCAL_CS["feature space",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
