"""Write maps as Cloud Optimized GeoTIFFs with everything that makes them open right: palette, names, overviews, style.

A tiled GeoTIFF is written window by window and then copied with GDAL's COG driver; writing into the COG driver
itself would hold the whole raster in memory and read unwritten pixels as 0. The final name appears only when the file
is whole, and the sidecars come last. The same pixels and tags give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from pipeline import __version__
from pipeline.errors import OutputError, counted
from pipeline.files import check_target, scratch_folder, whole_file, write_text
from pipeline.legend import NODATA, VIRIDIS, ClassScheme
from pipeline.maps.legends import LEGEND_HASH_TAG, LEGEND_TAG, aux_xml, sidecar_paths
from pipeline.maps.pixels import ClassCounter, ClassCounts, PixelRows, check_shape, row_bands
from pipeline.maps.style import LAYERS, PERCENT_NODATA, PercentLayer, paletted_pipe, qml, ramp_pipe
from pipeline.quantity import LEVELS, Quantity

if TYPE_CHECKING:
    from pipeline.grid import Grid, Window

    Tags = Mapping[str, object]
    Observe = Callable[[NDArray[Any], Window], None]

MAP_SUFFIX = "_lc"
VALUE_NODATA = -9999.0
QUANTITY_TAG = "LANDCOVER_QUANTITY"
# 512-pixel blocks and 2x overviews down to one block: what GDAL's COG driver and rio-cogeo both do by default.
_BLOCK_PX = 512
# Levels of DEFLATE: GDAL's default, and its quickest. Per cents are noise to a compressor: of a scene of 6144 x 6144
# pixels the default takes 2.2 s of a core for 17.0 MB, the quickest 0.8 s for 18.7 MB.
_LEVEL, _NOISE_LEVEL = 6, 1
_FAILURES = (RasterioError, CPLE_BaseError)


@dataclass(frozen=True)
class SceneFiles:
    """What lies beside one class map."""

    class_map: Path  # ``<scene>_lc.tif``
    layers: Mapping[str, Path] = field(default_factory=dict)  # Layers in percent by key, in the order of LAYERS
    probabilities: Path | None = None  # One band per class in percent
    polygons: Path | None = None  # GeoPackage
    polygons_parquet: Path | None = None  # The same as GeoParquet
    polygons_fgb: Path | None = None  # The same as FlatGeobuf
    objects: Path | None = None  # GeoPackage of one polygon per object
    sets: Path | None = None  # Class sets, a raster of classes with a legend of its own
    quicklook: Path | None = None  # PNG
    values: Path | None = None  # Of a continuous target: value, lower and upper


def scene_files(class_map: Path) -> SceneFiles:
    """The files beside ``<scene>_lc.tif`` that bear its name."""
    stem = class_map.stem.removesuffix(MAP_SUFFIX)

    def beside(ending: str) -> Path | None:
        path = class_map.with_name(f"{stem}_{ending}")
        return path if path.exists() else None

    found = {layer.key: beside(f"{layer.suffix}.tif") for layer in LAYERS}
    return SceneFiles(
        class_map,
        {key: path for key, path in found.items() if path},
        probabilities=beside("probabilities.tif"),
        polygons=beside("lc.gpkg"),
        polygons_parquet=beside("lc.parquet"),
        polygons_fgb=beside("lc.fgb"),
        objects=beside("objects.gpkg"),
        sets=beside("sets.tif"),
        quicklook=beside("quicklook.png"),
        values=beside("value.tif"),
    )


def classes_title(class_map: Path) -> str:
    """What a class map is called: land cover, or the classes of a continuous map beside it."""
    return "Land cover" if scene_files(class_map).values is None else "Value classes"


@dataclass(frozen=True)
class _Layout:
    """What makes one kind of map: band names, tags, nodata, overview resampling, palette, level of DEFLATE."""

    bands: tuple[str, ...]
    tags: Tags
    nodata: float = PERCENT_NODATA
    overviews: Literal["MODE", "AVERAGE"] = "AVERAGE"
    palette: Mapping[int, tuple[int, int, int, int]] | None = None
    level: int = _NOISE_LEVEL
    dtype: str = "uint8"
    unit: str = ""


def write_class_map(
    path: Path, pixels: PixelRows, *, grid: Grid, scheme: ClassScheme, tags: Tags | None = None, overwrite: bool = False
) -> ClassCounts:
    """Write codes as ``<path>``, ``<path>.aux.xml`` and ``<stem>.qml``; returns pixels and ha per class.

    ``pixels`` are codes uint8 [row, col]: 0 is nodata, every other value a code of ``scheme``, which is also stored in
    the file, with its hash. ``tags`` say what the map was made with: text as it is, anything else as JSON.

    Raises:
        OutputError: the file exists, the folder cannot be written, or the disk is full; no partial map is left.
        LegendError: a code is no class of ``scheme``.
    """
    legend = {LEGEND_TAG: scheme.to_json(), LEGEND_HASH_TAG: scheme.hash}
    palette = {NODATA: (0, 0, 0, 0)} | {item.code: (*item.rgb, 255) for item in scheme.classes}
    layout = _Layout(("land cover",), {**(tags or {}), **legend}, NODATA, "MODE", palette, _LEVEL)
    counter = ClassCounter(grid, scheme)
    _write_cog(path, pixels, grid=grid, layout=layout, overwrite=overwrite, observe=counter.add)
    counts = counter.result()
    aux, style = sidecar_paths(path)
    write_text(aux, aux_xml(scheme, counts))
    write_text(style, qml(paletted_pipe(scheme)))
    return counts


def write_percent(
    path: Path, pixels: PixelRows,
    *, grid: Grid, layer: PercentLayer | ClassScheme, tags: Tags | None = None, overwrite: bool = False,
) -> None:  # fmt: skip
    """Write a layer in percent, or the probabilities of the classes of a legend, as uint8, nodata 255, with its style.

    Probabilities are one band per class [band, row, col] in the order of the legend; the style shows the first.
    MINISBLACK keeps three or four bands from being read as RGB or alpha.

    Raises:
        OutputError: as :func:`write_class_map`.
    """
    if isinstance(layer, PercentLayer):
        layout, pipe = _Layout((layer.band,), tags or {}), ramp_pipe(1, layer.colors, maximum=layer.maximum)
    else:
        layout, pipe = _Layout(layer.names, {**(tags or {}), LEGEND_HASH_TAG: layer.hash}), ramp_pipe(1, VIRIDIS)
    _write_cog(path, pixels, grid=grid, layout=layout, overwrite=overwrite)
    write_text(sidecar_paths(path)[1], qml(pipe))


def write_values(
    path: Path, pixels: PixelRows, *, grid: Grid, quantity: Quantity, tags: Tags | None = None, overwrite: bool = False
) -> None:
    """Write a continuous map: bands value, lower and upper, float32 with nodata -9999, unit and description.

    The style is graduated: a perceptual ramp between the limits of the outer value classes.

    ``pixels`` are float32 [value, lower, upper; row; col], NaN without observation.

    Raises:
        OutputError: as :func:`write_class_map`.
    """
    low, high = (round(100 * level) for level in (LEVELS[0], LEVELS[-1]))
    names = (quantity.title, f"{quantity.title}, {low} % quantile", f"{quantity.title}, {high} % quantile")
    about = {**(tags or {}), QUANTITY_TAG: quantity.to_json()}
    layout = _Layout(names, about, VALUE_NODATA, dtype="float32", unit=quantity.unit)
    spread = _Spread()
    _write_cog(path, _Rounded(pixels), grid=grid, layout=layout, overwrite=overwrite, observe=spread.add)
    bottom, top = spread.limits(quantity)
    write_text(sidecar_paths(path)[1], qml(ramp_pipe(1, VIRIDIS, minimum=bottom, maximum=top, unit=quantity.unit)))


class _Spread:
    """Where the values of a map lie, from a thin sample."""

    def __init__(self) -> None:
        self._seen: list[NDArray[np.float32]] = []

    def add(self, values: NDArray[Any], window: Window) -> None:  # noqa: ARG002 - as observers are called
        """Values of a window."""
        thin = values[0, ::8, ::8]
        self._seen.append(thin[thin != VALUE_NODATA])

    def limits(self, quantity: Quantity) -> tuple[float, float]:
        """Second and 98th percentile: what most of the map lies between; without pixels the quantity's own."""
        seen = np.concatenate(self._seen) if self._seen else np.empty(0, dtype=np.float32)
        if not len(seen) or np.ptp(seen) == 0:
            return quantity.mean - 1.0, quantity.mean + 1.0
        bottom, top = np.percentile(seen, [2, 98])
        return float(bottom), float(top if top > bottom else bottom + 1.0)


class _Rounded:
    """Values with nodata in the place of NaN, rounded to what they can be known by.

    The last bits of a float32 are noise, which does not compress: 14 bits of each number stay, 5 of its digits.
    """

    def __init__(self, pixels: PixelRows) -> None:
        self._pixels = pixels
        self.shape, self.dtype = pixels.shape, np.dtype("float32")

    def read(self, window: Window) -> NDArray[np.float32]:
        """Values float32 [band, row, col] of a window."""
        values: NDArray[np.float32] = self._pixels.read(window)
        bits = values.view(np.uint32)
        bits += np.uint32(1 << 8)
        bits &= np.uint32(0xFFFFFFFF << 9 & 0xFFFFFFFF)
        values[~np.isfinite(values)] = VALUE_NODATA
        return values


def _write_cog(
    path: Path, pixels: PixelRows, *, grid: Grid, layout: _Layout, overwrite: bool, observe: Observe | None = None
) -> None:
    check_shape(pixels, grid)
    if pixels.dtype != layout.dtype or (len(layout.bands) > 1 and pixels.shape[0] != len(layout.bands)):
        expected, got = f"{layout.dtype}, {counted(len(layout.bands), 'band')}", f"{pixels.dtype} {pixels.shape}"
        raise OutputError("pixels do not fit the map", path=path, got=got, expected=expected)
    check_target(path, overwrite=overwrite)
    with (
        whole_file(path, what="the map", failures=_FAILURES, overwrite=overwrite) as part,
        scratch_folder(path) as folder,
    ):
        tiles = folder / "tiles.tif"
        _write_tiles(tiles, pixels, grid=grid, layout=layout, observe=observe)
        _copy_to_cog(tiles, part, layout=layout)
        for sidecar in sidecar_paths(path):  # those of a map that is replaced no longer hold
            sidecar.unlink(missing_ok=True)


def _write_tiles(path: Path, pixels: PixelRows, *, grid: Grid, layout: _Layout, observe: Observe | None) -> None:
    # Not compressed: the file is read once and deleted, and a byte per pixel is what the prediction's own rows take.
    profile: dict[str, Any] = {
        "driver": "GTiff", "dtype": layout.dtype, "count": len(layout.bands), "nodata": layout.nodata,
        "crs": grid.crs, "transform": grid.transform, "height": grid.height, "width": grid.width,
        "tiled": True, "blockxsize": _BLOCK_PX, "blockysize": _BLOCK_PX, "bigtiff": "IF_SAFER",
        "photometric": "MINISBLACK", "interleave": "band",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        if layout.palette is not None:
            target.write_colormap(1, layout.palette)
        for number, name in enumerate(layout.bands, 1):
            target.set_band_description(number, name)
            if layout.unit:
                target.set_band_unit(number, layout.unit)
        target.update_tags(TIFFTAG_SOFTWARE=f"landcover {__version__}", **_texts(layout.tags))
        for window in row_bands(grid):
            values = pixels.read(window)
            if observe is not None:
                observe(values, window)
            target.write(values if values.ndim == 3 else values[np.newaxis], window=window.to_rasterio())  # noqa: PLR2004 - [band, row, col]


def _copy_to_cog(source: Path, target: Path, *, layout: _Layout) -> None:
    more = {"predictor": "FLOATING_POINT"} if layout.dtype == "float32" else {}
    rasterio.shutil.copy(
        source, target, driver="COG", compress="DEFLATE", blocksize=_BLOCK_PX, overview_resampling=layout.overviews,
        level=layout.level, bigtiff="IF_SAFER", num_threads="ALL_CPUS", **more,
    )  # fmt: skip
    # A copy that ran out of space can leave a file that opens: the last block written is at the end of the file.
    with rasterio.open(target) as copied:
        corner = rasterio.windows.Window(copied.width - 1, copied.height - 1, 1, 1)
        copied.read(window=corner)


def _texts(tags: Tags) -> dict[str, str]:
    """Tags as text, keys in upper case and sorted, so that equal settings give equal bytes."""
    texts = {
        key.upper(): value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        for key, value in tags.items()
    }
    return dict(sorted(texts.items()))
