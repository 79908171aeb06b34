"""Real SAFE metadata made readable: images of the size that it states, sparse, so that a whole tile takes no space."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import rasterio
from affine import Affine

from pipeline.scenes.safe_metadata import parse_product, parse_tile

NATIVE = dict.fromkeys(("B02", "B03", "B04", "B08"), 10) | dict.fromkeys(("B01", "B09", "B10"), 60)


def with_sparse_images(metadata: Path, folder: Path) -> Path:
    """A copy of a SAFE without imagery, with the images that its XML lists; all pixels are 0, which is nodata."""
    root = folder / metadata.name
    shutil.copytree(metadata, root)
    product = next(path for path in root.iterdir() if path.name.lower().startswith("mtd_msil"))
    images = parse_product(product.read_bytes(), path=str(product)).images
    granule = next(root.glob("GRANULE/*/MTD_TL.xml"))
    tile = parse_tile(granule.read_bytes(), path=str(granule))
    for name in images:
        stated = re.search(r"_(\d\d)m$", name)
        key = name.removesuffix(f"_{stated[1]}m" if stated else "").rsplit("_", 1)[1]
        metres = int(stated[1]) if stated else NATIVE.get(key, 20)
        _sparse(root / f"{name}.tif", tile.shapes[metres], metres, crs=tile.crs, corner=tile.upper_left)
    return root


def _sparse(path: Path, shape: tuple[int, int], metres: int, *, crs: str, corner: tuple[float, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "height": shape[0], "width": shape[1], "dtype": "uint16", "crs": crs}
    profile |= {"tiled": True, "blockxsize": 1024, "blockysize": 1024, "SPARSE_OK": True}
    with rasterio.open(path, "w", transform=Affine(metres, 0, corner[0], 0, -metres, corner[1]), **profile):
        pass
