"""Fake Sentinel-2 products: real folder and file names, real XML structure, a few hundred pixels.

The pixels come from a function of ground coordinates, so that a test knows what each band must hold after reading.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

Truth = Callable[[str, NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""(band key, x, y of pixel centres in metres) -> reflectance."""

KEYS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
GSD = {"B02": 10, "B03": 10, "B04": 10, "B08": 10, "B01": 60, "B09": 60, "B10": 60} | dict.fromkeys(
    ("B05", "B06", "B07", "B8A", "B11", "B12"), 20
)
ULX, ULY = 399_960, 5_800_020
STRIP_PX = 1024


def ramp(key: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflectance that encodes the ground coordinates, differently for each band; linear, so bilinear is exact."""
    band = KEYS.index(key)
    return 0.02 + 0.01 * band + (x - ULX) * 1e-4 + (ULY - y) * 5e-5


@dataclass(frozen=True)
class Safe:
    """What product to fake."""

    level: Literal["L1C", "L2A"] = "L2A"
    baseline: str = "05.10"
    size_m: int = 1200
    truth: Truth = ramp
    quantification: int = 10_000
    offsets: dict[str, int] | None = None
    """DN by band key; None means what the baseline has: -1000 from 04.00 on, none before."""
    tile: str = "T33UUU"
    date: str = "20230625T101559"
    naming: Literal["new", "old"] = "new"
    epsg: int = 32633
    nodata_columns_m: int = 0
    """Width of the part at the left that the orbit does not cover."""
    scl: NDArray[np.uint8] | None = None
    clouds: tuple[tuple[float, float, float, float], ...] = ()
    """L1C: left, bottom, right, top of opaque clouds in metres."""
    leave_out: tuple[str, ...] = ()
    driver: Literal["JP2OpenJPEG", "GTiff"] = "JP2OpenJPEG"
    edit: dict[str, str] = field(default_factory=dict)
    """Replacements in the product XML."""

    @property
    def minor(self) -> str:
        return self.baseline.replace(".", "")

    @property
    def name(self) -> str:
        if self.naming == "old":
            return f"S2A_OPER_PRD_MSI{self.level}_PDMC_20160423T103112_R065_V{self.date}_{self.date}"
        return f"S2A_MSI{self.level}_{self.date}_N{self.minor}_R065_{self.tile}_20230625T165559"

    @property
    def applied(self) -> dict[str, int]:
        if self.offsets is not None:
            return self.offsets
        return dict.fromkeys(KEYS, -1000) if self.baseline >= "04.00" else {}


def write_safe(folder: Path, what: Safe | None = None) -> Path:
    """Write the product below ``folder``; gives its path (X.SAFE)."""
    what = what or Safe()
    root = folder / f"{what.name}.SAFE"
    granule = f"{what.level}_{what.tile}_A041826_{what.date}"
    if what.naming == "old":
        granule = f"S2A_OPER_MSI_{what.level}_TL_SGS__{what.date}_A004367_{what.tile}_N{what.baseline}"
    base = root / "GRANULE" / granule
    images = []
    for key in KEYS:
        if key == "B10" and what.level == "L2A":
            continue
        for metres in _resolutions(what, key):
            stem = _image_stem(what, granule, key, metres)
            images.append(f"GRANULE/{granule}/IMG_DATA/{stem}" if what.naming == "new" else Path(stem).name)
            if key not in what.leave_out:
                _write_image(base / "IMG_DATA" / stem, what, key, metres)
    if what.level == "L2A":
        stem = _image_stem(what, granule, "SCL", 20)
        images.append(f"GRANULE/{granule}/IMG_DATA/{stem}")
        if "SCL" not in what.leave_out:
            _write_scl(base / "IMG_DATA" / stem, what)
    else:
        _write_cloud_mask(base / "QI_DATA", what)
    _write_xml(root, base, what, granule, images)
    return root


def zip_safe(root: Path) -> Path:
    """The same product as a zip beside it, the way the agency packs it."""
    target = root.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, f"{root.name}/{file.relative_to(root).as_posix()}")
    shutil.rmtree(root)
    return target


def _resolutions(what: Safe, key: str) -> list[int]:
    if what.level == "L1C" or what.naming == "old":
        return [GSD[key]]
    return [res for res in (10, 20, 60) if res >= GSD[key]]


def _image_stem(what: Safe, granule: str, key: str, metres: int) -> str:
    if what.naming == "old":
        return f"{granule.rsplit('_', 1)[0]}_{key}"
    if what.level == "L1C":
        return f"{what.tile}_{what.date}_{key}"
    return f"R{metres}m/{what.tile}_{what.date}_{key}_{metres}m"


def _centres(what: Safe, metres: int, rows: range | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = what.size_m // metres
    columns = (np.arange(count) + 0.5) * metres
    down = columns if rows is None else (np.arange(rows.start, rows.stop) + 0.5) * metres
    x, y = np.meshgrid(ULX + columns, ULY - down)
    return x, y


def _write_image(stem: Path, what: Safe, key: str, metres: int) -> None:
    count = what.size_m // metres
    pixels = np.empty((1, count, count), np.uint16)
    # In strips: the coordinates of a whole tile would take gigabytes.
    for start in range(0, count, STRIP_PX):
        rows = range(start, min(start + STRIP_PX, count))
        x, y = _centres(what, metres, rows)
        dn = np.round(what.truth(key, x, y) * what.quantification) - what.applied.get(key, 0)
        dn[x < ULX + what.nodata_columns_m] = 0
        pixels[0, rows.start : rows.stop] = dn
    _save(stem, what, pixels, metres)


def _write_scl(stem: Path, what: Safe) -> None:
    count = what.size_m // 20
    scl = what.scl if what.scl is not None else np.full((count, count), 4, np.uint8)
    x, _ = _centres(what, 20)
    _save(stem, what, np.where(x < ULX + what.nodata_columns_m, 0, scl).astype(np.uint8)[None], 20)


def _save(stem: Path, what: Safe, pixels: NDArray[np.generic], metres: int) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    lossless = (
        {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"}
        if what.driver == "JP2OpenJPEG"
        else {"compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 64}
    )
    with rasterio.open(
        stem.with_name(stem.name + (".jp2" if what.driver == "JP2OpenJPEG" else ".tif")),
        "w",
        driver=what.driver,
        width=pixels.shape[2],
        height=pixels.shape[1],
        count=pixels.shape[0],
        dtype=pixels.dtype,
        crs=f"EPSG:{what.epsg}",
        transform=Affine(metres, 0, ULX, 0, -metres, ULY),
        **lossless,
    ) as file:
        file.write(pixels)


def _write_cloud_mask(folder: Path, what: Safe) -> None:
    folder.mkdir(parents=True)
    if "MASK" in what.leave_out:
        return
    if what.baseline >= "04.00":
        x, y = _centres(what, 60)
        layers = np.zeros((3, *x.shape), np.uint8)
        for left, bottom, right, top in what.clouds:
            layers[0] |= ((x > left) & (x < right) & (y > bottom) & (y < top)).astype(np.uint8)
        _save(folder / "MSK_CLASSI_B00", what, layers, 60)
        return
    features = "".join(_cloud_feature(i, box) for i, box in enumerate(what.clouds))
    members = f"<eop:maskMembers>{features}</eop:maskMembers>" if features else ""
    name = "MSK_CLOUDS_B00.gml"
    if what.naming == "old":
        name = f"S2A_OPER_MSK_CLOUDS_SGS__{what.date}_A004367_{what.tile}_B00_MSIL1C.gml"
    (folder / name).write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0" '
        'xmlns:gml="http://www.opengis.net/gml/3.2" gml:id="S2A_OPER_MSK_CLOUDS">'
        f"<gml:name>MSK_CLOUDS_pixel_B0</gml:name>{members}</eop:Mask>\n"
    )


def _cloud_feature(number: int, box: tuple[float, float, float, float]) -> str:
    left, bottom, right, top = box
    ring = f"{left} {top} {right} {top} {right} {bottom} {left} {bottom} {left} {top}"
    return (
        f'<eop:MaskFeature gml:id="OPAQUE.{number}"><eop:maskType codeSpace="urn:gs2:S2PDGS:maskType">OPAQUE'
        f'</eop:maskType><eop:extentOf><gml:Polygon gml:id="OPAQUE.{number}_Polygon"><gml:exterior><gml:LinearRing>'
        f'<gml:posList srsDimension="2">{ring}</gml:posList></gml:LinearRing></gml:exterior></gml:Polygon>'
        "</eop:extentOf></eop:MaskFeature>"
    )


def _write_xml(root: Path, base: Path, what: Safe, granule: str, images: list[str]) -> None:
    digits = what.level[1:]
    tag = "IMAGE_FILE" if what.naming == "new" else "IMAGE_ID"
    group = "Granule" if what.naming == "new" else "Granules"
    listed = "".join(f"<{tag}>{name}</{tag}>" for name in images)
    quantity = f'<QUANTIFICATION_VALUE unit="none">{what.quantification}</QUANTIFICATION_VALUE>'
    offsets = "".join(
        f'<{"BOA" if digits == "2A" else "RADIO"}_ADD_OFFSET band_id="{KEYS.index(key)}">{value}'
        f"</{'BOA' if digits == '2A' else 'RADIO'}_ADD_OFFSET>"
        for key, value in what.applied.items()
    )
    if digits == "2A":
        quantity = (
            f'<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">{what.quantification}'
            '</BOA_QUANTIFICATION_VALUE><AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>'
            "</QUANTIFICATION_VALUES_LIST>"
        )
    wrapper = "BOA_ADD_OFFSET_VALUES_LIST" if digits == "2A" else "Radiometric_Offset_List"
    offset_list = f"<{wrapper}>{offsets}</{wrapper}>" if offsets else ""
    time = f"{what.date[:4]}-{what.date[4:6]}-{what.date[6:8]}T{what.date[9:11]}:{what.date[11:13]}:{what.date[13:]}"
    special = "".join(
        f"<Special_Values><SPECIAL_VALUE_TEXT>{text}</SPECIAL_VALUE_TEXT>"
        f"<SPECIAL_VALUE_INDEX>{index}</SPECIAL_VALUE_INDEX></Special_Values>"
        for text, index in (("NODATA", 0), ("SATURATED", 65535))
    )
    psd = f"https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{digits}.xsd"
    xml = (
        f'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<n1:Level-{digits}_User_Product xmlns:n1="{psd}">'
        f"<n1:General_Info><Product_Info><PRODUCT_START_TIME>{time}.024Z</PRODUCT_START_TIME>"
        f"<PRODUCT_URI>{what.name}.SAFE</PRODUCT_URI><PROCESSING_LEVEL>Level-{digits}</PROCESSING_LEVEL>"
        f"<PRODUCT_TYPE>S2MSI{digits}</PRODUCT_TYPE><PROCESSING_BASELINE>{what.baseline}</PROCESSING_BASELINE>"
        f"<Datatake><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME></Datatake>"
        f'<Product_Organisation><Granule_List><{group} granuleIdentifier="{granule}" imageFormat="JPEG2000">{listed}'
        f"</{group}></Granule_List></Product_Organisation></Product_Info><Product_Image_Characteristics>{special}"
        f"{quantity}{offset_list}</Product_Image_Characteristics></n1:General_Info></n1:Level-{digits}_User_Product>\n"
    )
    for old, new in what.edit.items():
        xml = xml.replace(old, new)
    names = {"new": (f"MTD_MSI{what.level}.xml", "MTD_TL.xml")}
    names["old"] = (
        f"S2A_OPER_MTD_SAF{what.level}_PDMC_20160423T103112_R065_V{what.date}_{what.date}.xml",
        f"S2A_OPER_MTD_{what.level}_TL_SGS__{what.date}_A004367_{what.tile}.xml",
    )
    product_name, tile_name = names[what.naming]
    if "PRODUCT_XML" not in what.leave_out:
        (root / product_name).write_text(xml)
    if "TILE_XML" not in what.leave_out:
        (base / tile_name).write_text(_tile_xml(what))
    (root / "manifest.safe").write_text('<?xml version="1.0" encoding="UTF-8"?>\n<xfdu:XFDU xmlns:xfdu="urn:x"/>\n')


def _tile_xml(what: Safe) -> str:
    digits = what.level[1:]
    sizes = "".join(
        f'<Size resolution="{res}"><NROWS>{what.size_m // res}</NROWS><NCOLS>{what.size_m // res}</NCOLS></Size>'
        for res in (10, 20, 60)
    )
    places = "".join(
        f'<Geoposition resolution="{res}"><ULX>{ULX}</ULX><ULY>{ULY}</ULY><XDIM>{res}</XDIM><YDIM>-{res}</YDIM>'
        "</Geoposition>"
        for res in (10, 20, 60)
    )
    psd = f"https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-{digits}_Tile_Metadata.xsd"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<n1:Level-{digits}_Tile_ID xmlns:n1="{psd}"><n1:General_Info>'
        f"<TILE_ID>S2A_OPER_MSI_{what.level}_TL_2APS_{what.date}_A041826_{what.tile}_N{what.baseline}</TILE_ID>"
        "</n1:General_Info><n1:Geometric_Info><Tile_Geocoding><HORIZONTAL_CS_NAME>WGS84 / UTM zone 33N"
        f"</HORIZONTAL_CS_NAME><HORIZONTAL_CS_CODE>EPSG:{what.epsg}</HORIZONTAL_CS_CODE>{sizes}{places}"
        f"</Tile_Geocoding></n1:Geometric_Info></n1:Level-{digits}_Tile_ID>\n"
    )
