"""Band tables: common name, product key, centre wavelength, ground sample distance.

Names are STAC EO common names, with Sentinel-2's three red-edge bands told apart by centre wavelength
(rededge071, rededge075, rededge078) as STAC EO 2.0 does. Scale, offset and nodata are *not* here where a product's own
metadata states them: the readers take them from there.

Sources: Sentinel-2 - Sentinel-2 MSI Technical Guide, spatial and spectral resolution (centres of S2A);
Landsat - USGS, "What are the band designations for the Landsat satellites?"; names - STAC EO extension v2.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache


@dataclass(frozen=True)
class BandSpec:
    """One band of a sensor."""

    name: str  # Common name, unique within a table
    key: str  # The agency's name (B02, SR_B2)
    centre_um: float  # Centre wavelength in micrometres
    gsd_m: float  # Native ground sample distance in metres
    aliases: tuple[str, ...] = ()  # Other keys the same band goes by


SENTINEL2 = (
    BandSpec("coastal", "B01", 0.443, 60, ("B1",)),
    BandSpec("blue", "B02", 0.492, 10, ("B2",)),
    BandSpec("green", "B03", 0.560, 10, ("B3",)),
    BandSpec("red", "B04", 0.665, 10, ("B4",)),
    BandSpec("rededge071", "B05", 0.704, 20, ("B5", "rededge1", "red_edge_1")),
    BandSpec("rededge075", "B06", 0.741, 20, ("B6", "rededge2", "red_edge_2")),
    BandSpec("rededge078", "B07", 0.783, 20, ("B7", "rededge3", "red_edge_3")),
    BandSpec("nir", "B08", 0.833, 10, ("B8",)),
    BandSpec("nir08", "B8A", 0.865, 20, ("B08A",)),
    BandSpec("nir09", "B09", 0.945, 60, ("B9",)),
    BandSpec("cirrus", "B10", 1.374, 60),
    BandSpec("swir16", "B11", 1.614, 20, ("swir1", "swir_1")),
    BandSpec("swir22", "B12", 2.202, 20, ("swir2", "swir_2")),
)

LANDSAT_TM = (
    BandSpec("blue", "B1", 0.485, 30, ("SR_B1",)),
    BandSpec("green", "B2", 0.560, 30, ("SR_B2",)),
    BandSpec("red", "B3", 0.660, 30, ("SR_B3",)),
    BandSpec("nir08", "B4", 0.830, 30, ("SR_B4",)),
    BandSpec("swir16", "B5", 1.650, 30, ("SR_B5",)),
    BandSpec("lwir11", "B6", 11.450, 120, ("ST_B6",)),
    BandSpec("swir22", "B7", 2.215, 30, ("SR_B7",)),
)

LANDSAT_ETM = (
    *LANDSAT_TM[:5],
    BandSpec("lwir11", "B6", 11.450, 60, ("ST_B6", "B6_VCID_1")),
    LANDSAT_TM[6],
    BandSpec("pan", "B8", 0.710, 15),
)

LANDSAT_OLI = (
    BandSpec("coastal", "B1", 0.443, 30, ("SR_B1",)),
    BandSpec("blue", "B2", 0.482, 30, ("SR_B2",)),
    BandSpec("green", "B3", 0.561, 30, ("SR_B3",)),
    BandSpec("red", "B4", 0.655, 30, ("SR_B4",)),
    BandSpec("nir08", "B5", 0.865, 30, ("SR_B5",)),
    BandSpec("swir16", "B6", 1.609, 30, ("SR_B6",)),
    BandSpec("swir22", "B7", 2.201, 30, ("SR_B7",)),
    BandSpec("pan", "B8", 0.590, 15),
    BandSpec("cirrus", "B9", 1.373, 30),
    BandSpec("lwir11", "B10", 10.895, 100, ("ST_B10",)),
    BandSpec("lwir12", "B11", 12.005, 100),
)

# Harmonized Landsat and Sentinel-2: keys of one form, other bands. Source: HLS v2.0 User Guide, table 8.
HLS_S30 = tuple(replace(spec, gsd_m=30) for spec in SENTINEL2)
HLS_L30 = tuple(
    replace(spec, key=f"B{int(spec.key[1:]):02d}", aliases=(), gsd_m=30) for spec in LANDSAT_OLI if spec.name != "pan"
)

TABLES: dict[str, tuple[BandSpec, ...]] = {
    "sentinel-2": SENTINEL2,
    "landsat-tm": LANDSAT_TM,
    "landsat-etm": LANDSAT_ETM,
    "landsat-oli": LANDSAT_OLI,
    "hls-s30": HLS_S30,
    "hls-l30": HLS_L30,
}
COMMON_NAMES = tuple(dict.fromkeys(spec.name for table in TABLES.values() for spec in table))


@cache
def _lookup(sensor: str) -> dict[str, BandSpec]:
    table: dict[str, BandSpec] = {}
    for spec in TABLES[sensor]:
        for key in (spec.name, spec.key, *spec.aliases):
            table[key.lower()] = spec
    return table


def find_band(text: str, *, sensor: str) -> BandSpec | None:
    """The band of ``sensor`` (a key of TABLES) called ``text`` in any spelling, None where there is none.

    >>> find_band("b8a", sensor="sentinel-2").name
    'nir08'
    >>> find_band("SR_B5", sensor="landsat-oli").name
    'nir08'
    """
    return _lookup(sensor).get(text.strip().lower())


def common_name(text: str, *, sensor: str | None = None) -> str:
    """The common name of a band description; the description itself, in lower case, where it is unknown.

    Without a sensor only names that mean the same for every sensor are translated (common names and their aliases, B8A
    and B01 to B04), since B05 is near infrared for HLS L30 and red edge for MSI.

    >>> common_name("B02"), common_name("B05"), common_name("NIR"), common_name("B5", sensor="landsat-oli")
    ('blue', 'b05', 'nir', 'nir08')
    """
    key = text.strip()
    if sensor is not None:
        spec = find_band(key, sensor=sensor)
        return spec.name if spec else key.lower()
    lowered = key.lower()
    if lowered in COMMON_NAMES:
        return lowered
    spec = find_band(key, sensor="sentinel-2") if _SAME_FOR_ALL.fullmatch(key) or not lowered.startswith("b") else None
    return spec.name if spec else lowered


_AGENCY_KEY = re.compile(r"(SR_|ST_)?B\d{1,2}A?", re.IGNORECASE)
# Source: USGS ESPA, descriptions of the bands of its files.
_NUMBERED = re.compile(r"(?:toa |surface )?band (\d{1,2}) (?:surface |toa )?(reflectance|temperature)", re.IGNORECASE)
# What MSI and HLS L30 call the same band, and what only MSI has.
_SAME_FOR_ALL = re.compile(r"B(0[1-4]|8A|08A)", re.IGNORECASE)
_SENTINEL2_ONLY = re.compile(r"B(0?8|8A|08A|12)", re.IGNORECASE)
# Sensors by the names of products, and by what agencies write into the tags of their files.
_BY_NAME = (
    ("hls-l30", r"HLS[\W_]?L30|HLSL30|HLS2[\W_]L30"),
    ("hls-s30", r"HLS[\W_]?S30|HLSS30|HLS2[\W_]S30"),
    ("sentinel-2", r"\bS2[A-D]_|MSIL(1C|2A)|(\b|_)T\d{2}[A-Z]{3}_\d{8}T\d{6}"),
    ("landsat-oli", r"(\b|_)L[CO]0?[89](_|\d{13})"),
    ("landsat-etm", r"(\b|_)LE0?7(_|\d{13})"),
    ("landsat-tm", r"(\b|_)LT0?[45](_|\d{13})"),
)
# In tags a mission's name is a statement; in a file's name it may be anything.
_BY_TAG = (
    ("sentinel-2", r"Sentinel[-_ ]?2"),
    ("landsat-oli", r"Landsat[-_ ]?[89]"),
    ("landsat-etm", r"Landsat[-_ ]?7"),
    ("landsat-tm", r"Landsat[-_ ]?[45]"),
)


def sensor_named(names: Iterable[str], *, tags: Iterable[str] = ()) -> str | None:
    """The sensor that names of files and products say, or tags; None where they name none or several.

    >>> sensor_named(["HLS.L30.T22MBU.2024001T134000.v2.0.B05"]), sensor_named(["T33UUU_20240601T102021_B04_10m"])
    ('hls-l30', 'sentinel-2')
    """
    for texts, patterns in ((names, _BY_NAME), (tags, (*_BY_NAME, *_BY_TAG))):
        found = (
            next((sensor for sensor, pattern in patterns if re.search(pattern, text, re.IGNORECASE)), None)
            for text in texts
        )
        named = set(found) - {None}
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def name_in_words(text: str, *, sensor: str = "", beside: Iterable[str] = ()) -> str:
    """The common name of a band whose description is an agency's number among words, as ESPA writes them.

    Without a sensor bands called by numbers ``beside`` it tell: of Landsat, TM and ETM+ alone have band 7 in the short
    waves and band 6 in the thermal.

    >>> name_in_words("band 3 reflectance", sensor="landsat-oli"), name_in_words("band 3 reflectance")
    ('green', 'band 3 reflectance')
    >>> name_in_words("band 3 reflectance", beside=("band 5 reflectance", "band 7 reflectance", "band 6 temperature"))
    'red'
    """
    found = _NUMBERED.match(text)
    if found is None:
        return text
    if not sensor:
        numbers = {key[1] for name in beside if (key := _NUMBERED.match(name)) and key[2] == "reflectance"}
        sensor = "landsat-tm" if "7" in numbers and "6" not in numbers else ""
    spec = find_band(f"B{found[1]}", sensor=sensor) if sensor else None
    return spec.name if spec else text


def infer_sensor(texts: Iterable[str]) -> str | None:
    """The sensor that band names give away, None where they could be several.

    B8, B8A and B12 are Sentinel-2's alone; SR_B6 and ST_B10 are OLI/TIRS's alone. B1 to B7 alone say nothing, nor do
    B05 to B07 with B10 and B11, which HLS L30 has too.

    >>> infer_sensor(["B1", "B8A", "B11"]), infer_sensor(["SR_B5", "SR_B6"]), infer_sensor(["B04", "B05"])
    ('sentinel-2', 'landsat-oli', None)
    """
    keys = [text.strip() for text in texts if _AGENCY_KEY.fullmatch(text.strip())]
    agencies = [sensor for sensor in TABLES if keys and not sensor.startswith("hls")]
    fitting = [sensor for sensor in agencies if all(find_band(key, sensor=sensor) for key in keys)]
    if "sentinel-2" in fitting:
        return "sentinel-2" if any(_SENTINEL2_ONLY.fullmatch(key) for key in keys) else None
    return fitting[0] if len(fitting) == 1 and any("_" in key for key in keys) else None


def centre_um(name: str) -> float | None:
    """Centre wavelength in micrometres of a common name (first sensor that has it), None for other layers."""
    return next((spec.centre_um for table in TABLES.values() for spec in table if spec.name == name), None)


def is_optical(name: str) -> bool:
    """Whether a common name is a reflective band (0.4 to 3 um), whose values are reflectance."""
    centre = centre_um(name)
    return centre is not None and centre < 3.0  # noqa: PLR2004 - thermal bands start beyond 3 um


def listed(names: Sequence[str]) -> str:
    """Names of bands after the word, which names that begin with it do not need.

    >>> listed(["red"]), listed(["red", "nir"]), listed(["band 6 temperature"])
    ('band red', 'bands red, nir', 'band 6 temperature')
    """
    word = "" if all(name.lower().startswith("band") for name in names) else "band " if len(names) == 1 else "bands "
    return word + ", ".join(names)


# Names that files give bands of temperature ("band 6 temperature", "TIRS1", "ST_B10"), and of the air (HLS: "cirrus").
_NOT_GROUND = re.compile(
    r"(nir09|cirrus|lwir\d*|(wvp?|water[ _]?vapou?r)|(sr[ _])?aerosol|st_b\d+)"
    r"|.*(thermal|tirs?\d?\b|brightness[ _]temp|\bb(and)?[ _]?(6|10|11)[ _]temp).*"
)


def besides_ground(names: Sequence[str], *, sensor: str = "") -> tuple[str, ...]:
    """Those of a scene's bands that measure the air or temperature, and are left out unless they are asked for.

    Sentinel-2's B1 (aerosols), B9 (water vapour) and B10 (cirrus), at 60 m; Landsat's cirrus and thermal bands.
    Landsat's coastal band, at 30 m, stays. Nothing is left out where nothing would be left.
    Source: Sentinel-2 MSI User Guide, resolutions (B1, B9 and B10 are for atmospheric correction and cirrus).

    >>> besides_ground(["coastal", "blue", "nir", "nir09"], sensor="sentinel-2")
    ('coastal', 'nir09')
    >>> besides_ground(["coastal", "nir08", "lwir11"]), besides_ground(["lwir11"])
    (('lwir11',), ())
    """
    msi = sensor in {"sentinel-2", "hls-s30"} or (not sensor and bool({"nir09", "rededge071"} & set(names)))
    found = tuple(n for n in names if (msi and n == "coastal") or _NOT_GROUND.fullmatch(n.lower()))
    return found if len(found) < len(names) else ()
