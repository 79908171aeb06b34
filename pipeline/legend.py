"""ClassScheme: what a code in a map means; and the legends analysts already use.

Three codes are never classes: NODATA (0, outside the scene, clouded, never seen), UNLABELLED (255, seen but nobody said
what it is; only in label rasters) and, inside the network, IGNORE_INDEX (255), which stands for both.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import LegendError
from pipeline.files import hash_bytes

NODATA = 0
UNLABELLED = 255
IGNORE_INDEX = 255
MAX_CLASSES = 254
# One class is no classification.
MIN_CLASSES = 2
# Five stops of matplotlib's viridis, dark for small values: perceptually uniform, told apart without colour vision.
# Source: van der Walt & Smith (2015), matplotlib default colormaps, CC0.
VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
_HEX = re.compile(r"#[0-9a-f]{6}")
_CODE = re.compile(r"[1-9][0-9]{0,2}")


@dataclass(frozen=True)
class LandClass:
    """One class: code in the map (1..254), name, colour ``#rrggbb``."""

    code: int
    name: str
    color: str

    def __post_init__(self) -> None:
        """Refuse codes that mean something else, empty names, and colours that are no colours."""
        if not NODATA < self.code < UNLABELLED:
            raise LegendError(f"code of class {self.name!r}", got=self.code, expected=f"{NODATA + 1}..{UNLABELLED - 1}")
        if not self.name.strip():
            raise LegendError(f"class {self.code} has no name")
        if not _HEX.fullmatch(self.color):
            what = f"colour of class {self.name!r}"
            raise LegendError(what, got=self.color, expected="#rrggbb in lower-case hexadecimal")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0..255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True)
class ClassScheme:
    """The classes of a map in order of their network index; nodata is 0 and unlabelled 255 in every scheme."""

    classes: tuple[LandClass, ...]

    def __post_init__(self) -> None:
        """Refuse schemes that are empty or say one thing twice."""
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            what = "number of classes"
            raise LegendError(what, got=len(self.classes), expected=f"1..{MAX_CLASSES}, as maps are uint8")
        for field in ("code", "name"):
            values = [getattr(item, field) for item in self.classes]
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise LegendError(f"class {field} used twice: {', '.join(map(str, sorted(twice)))}")

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in index order."""
        return tuple(item.name for item in self.classes)

    @property
    def codes(self) -> tuple[int, ...]:
        """Class codes in index order."""
        return tuple(item.code for item in self.classes)

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits that change when a code, name or colour does."""
        text = json.dumps([[item.code, item.name, item.color] for item in self.classes])
        return hash_bytes(text.encode())

    @cached_property
    def code_to_index(self) -> NDArray[np.uint8]:
        """Lookup table uint8 [256]: network index of a code, IGNORE_INDEX for every code that is no class."""
        table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        table[list(self.codes)] = np.arange(len(self.classes), dtype=np.uint8)
        return table

    @cached_property
    def index_to_code(self) -> NDArray[np.uint8]:
        """Lookup table uint8 [256]: code of a network index, NODATA for every index that is no class."""
        table = np.full(256, NODATA, dtype=np.uint8)
        table[: len(self.classes)] = self.codes
        return table

    def by_name(self, name: str) -> LandClass:
        """The class called ``name``; LegendError with the nearest names otherwise."""
        for item in self.classes:
            if item.name == name:
                return item
        raise LegendError(f"no class called {name!r}", expected="one of " + ", ".join(self.names))

    def by_code(self, code: int) -> LandClass:
        """The class with ``code``."""
        for item in self.classes:
            if item.code == code:
                return item
        raise LegendError(f"no class with code {code}", expected="one of " + ", ".join(map(str, self.codes)))

    def to_json(self) -> list[dict[str, int | str]]:
        """JSON-ready list of {code, name, color}."""
        return [{"code": item.code, "name": item.name, "color": item.color} for item in self.classes]

    @classmethod
    def from_json(cls, items: Iterable[Mapping[str, object]]) -> ClassScheme:
        """The inverse of :meth:`to_json`."""
        try:
            return cls(tuple(LandClass(int(str(i["code"])), str(i["name"]), str(i["color"]).lower()) for i in items))
        except (KeyError, TypeError, ValueError) as err:
            raise LegendError("legend is not a list of {code, name, color}", got=err) from err


# Okabe & Ito (2008), "Color universal design", first eight; then Paul Tol's "light" and "muted" qualitative schemes
# (Tol 2021, SRON/EPS/TN/09-002), all told apart by people with the common colour-vision deficiencies.
SAFE_PALETTE = (
    "#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#332288",
    "#882255", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#aa4499", "#88ccee",
    "#77aadd", "#ee8866", "#ffaabb", "#99ddff", "#bbcc33", "#aaaa00", "#eedd88", "#dddddd",
)  # fmt: skip

# Words in class names -> the colours of the safe palettes that maps use for them by habit (water blue, woods green);
# the first that is free is taken. English, French and Spanish words count where a word begins ("Rice" is no ice,
# "Sealed" no sea), German ones anywhere, since they end compounds ("Nadelwald"). Accents are taken off before.
_HABITS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\b(wetland|marsh|saltmarsh|bog|mangrove|swamp)", ("#56b4e9",)),
    (r"\b(water|freshwater|river|lake|ocean|pond|agua)|\b(sea|eaux?)\b|haline|wasser", ("#0072b2", "#332288")),
    (
        r"\b(forest|rainforest|wood|tree(?!less)|conifer|broadleaf|decid|foret|bosque)|wald",
        ("#117733", "#44aa99", "#009e73"),
    ),
    (r"\b(meadow|pasture)", ("#66b84c", "#999933")),
    (r"\b(grass|herb|lawn|prairie)|wiese", ("#bbcc33", "#999933")),
    (
        r"\b(crop|farm|field|arable|wheat|cotton|maize|agri|culture|cultivo)|\brice\b|acker",
        ("#f0e442", "#eedd88", "#ddcc77"),
    ),
    (r"\b(scrub|shrub|heath|bush)", ("#8c5a2b", "#999933")),
    (r"\b(built|urban|resid|village|town|settle|indus|city|bati)|siedlung", ("#d55e00", "#cc6677", "#882255")),
    (r"\b(bare|barren|sand|soil|rock|beach)|\bdry\b", ("#ddcc77", "#e69f00", "#ee8866")),
    (r"\b(orchard|vine|plantation)", ("#aa4499", "#cc79a7")),
    (r"\b(snow|cloud)|\bice\b", ("#dddddd",)),
)
# Colours of one legend keep this distance in CIE Lab, where about 2.3 is just seen side by side (Mahy et al. 1994) and
# areas far apart on a map need several times that. Nearer pairs of the palette are light blues and light yellows.
_APART = 16.0
# Hues looked at where the palette has no colour left that is apart.
_HUES = 96

# (code, name, colour). Sources: ESA WorldCover v200 Product User Manual, table 2; Brown et al. 2022 (Dynamic World),
# class_names and palette; USGS NLCD 2021 legend; CORINE Land Cover level 1-2 nomenclature, Copernicus Land Service.
KNOWN_LEGENDS: dict[str, tuple[tuple[int, str, str], ...]] = {
    "ESA WorldCover": (
        (10, "Tree cover", "#006400"), (20, "Shrubland", "#ffbb22"), (30, "Grassland", "#ffff4c"),
        (40, "Cropland", "#f096ff"), (50, "Built-up", "#fa0000"), (60, "Bare / sparse vegetation", "#b4b4b4"),
        (70, "Snow and ice", "#f0f0f0"), (80, "Permanent water bodies", "#0064c8"),
        (90, "Herbaceous wetland", "#0096a0"), (95, "Mangroves", "#00cf75"), (100, "Moss and lichen", "#fae6a0"),
    ),
    "Dynamic World": (
        (1, "water", "#419bdf"), (2, "trees", "#397d49"), (3, "grass", "#88b053"), (4, "flooded_vegetation", "#7a87c6"),
        (5, "crops", "#e49635"), (6, "shrub_and_scrub", "#dfc35a"), (7, "built", "#c4281b"), (8, "bare", "#a59b8f"),
        (9, "snow_and_ice", "#b39fe1"),
    ),
    "NLCD": (
        (11, "Open Water", "#466b9f"), (12, "Perennial Ice/Snow", "#d1def8"), (21, "Developed, Open Space", "#dec5c5"),
        (22, "Developed, Low Intensity", "#d99282"), (23, "Developed, Medium Intensity", "#eb0000"),
        (24, "Developed, High Intensity", "#ab0000"), (31, "Barren Land", "#b3ac9f"),
        (41, "Deciduous Forest", "#68ab5f"), (42, "Evergreen Forest", "#1c5f2c"), (43, "Mixed Forest", "#b5c58f"),
        (52, "Shrub/Scrub", "#ccb879"), (71, "Grassland/Herbaceous", "#dfdfc2"), (81, "Pasture/Hay", "#dcd939"),
        (82, "Cultivated Crops", "#ab6c28"), (90, "Woody Wetlands", "#b8d9eb"),
        (95, "Emergent Herbaceous Wetlands", "#6c9fb8"),
    ),
    "CORINE level 2": (
        (11, "Urban fabric", "#e6004d"), (12, "Industrial, commercial and transport units", "#cc4df2"),
        (13, "Mine, dump and construction sites", "#a600cc"),
        (14, "Artificial, non-agricultural vegetated areas", "#ffa6ff"),
        (21, "Arable land", "#ffffa8"), (22, "Permanent crops", "#e68000"), (23, "Pastures", "#e6e64d"),
        (24, "Heterogeneous agricultural areas", "#ffe6a6"), (31, "Forests", "#80ff00"),
        (32, "Scrub and/or herbaceous vegetation associations", "#ccf24d"),
        (33, "Open spaces with little or no vegetation", "#e6e6e6"), (41, "Inland wetlands", "#a6a6ff"),
        (42, "Maritime wetlands", "#ccccff"), (51, "Inland waters", "#00ccf2"), (52, "Marine waters", "#80f2e6"),
    ),
}  # fmt: skip


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def scheme_for(names: Sequence[str]) -> tuple[ClassScheme, str | None]:
    """A scheme for class names found in labels, and the known legend it came from (None for the safe palette).

    A known legend is used when every name is one of its names (spelling and case aside): codes and colours are then the
    published ones. Otherwise a name that is itself a code (1..254) keeps it, the others take the free codes from 1 in
    the order given, and colours come from a colour-blind-safe palette; beyond its colours that are apart, from hues
    farthest from all.

    >>> scheme, source = scheme_for(["trees", "Water"])
    >>> source, scheme.codes
    ('Dynamic World', (2, 1))
    >>> scheme_for(["5", "300", "1"])[0].codes
    (5, 2, 1)
    """
    for source, rows in KNOWN_LEGENDS.items():
        known = {_key(name): (code, color) for code, name, color in rows}
        if all(_key(name) in known for name in names):
            return ClassScheme(tuple(LandClass(known[_key(n)][0], n, known[_key(n)][1]) for n in names)), source
    own = {name: int(name) for name in names if _CODE.fullmatch(name) and int(name) <= MAX_CLASSES}
    free = (code for code in range(1, UNLABELLED) if code not in own.values())
    codes = [own[name] if name in own else next(free, UNLABELLED) for name in names]
    return ClassScheme(tuple(LandClass(*row) for row in zip(codes, names, _safe_colors(names), strict=True))), None


def changed_codes(scheme: ClassScheme) -> dict[str, int]:
    """Classes that are called by an integer and have another code: 0, negative ones, those above 254; name -> code.

    >>> changed_codes(scheme_for(["5", "300", "0"])[0])
    {'300': 1, '0': 2}
    """
    number = re.compile(r"-?\d+")
    return {c.name: c.code for c in scheme.classes if number.fullmatch(c.name) and int(c.name) != c.code}


def _safe_colors(names: Sequence[str]) -> list[str]:
    """A colour per name: a habitual one of its words that is apart from the others, then the palette's, then hues.

    Where no colour of the palette is left that is apart, it is the one, of its rest and of hues, farthest from all.
    """
    chosen: dict[int, str] = {}
    for position, name in enumerate(names):
        color = _first_apart(_habitual(name), chosen.values())
        if color:
            chosen[position] = color
    for position in range(len(names)):
        if position not in chosen:
            left = [color for color in SAFE_PALETTE if color not in chosen.values()]
            chosen[position] = _first_apart(left, chosen.values()) or _farthest(left, list(chosen.values()))
    return [chosen[position] for position in range(len(names))]


def _habitual(name: str) -> list[str]:
    """The colours that the words of a class name ask for, in order of wish.

    >>> _habitual("WetSand"), _habitual("Wälder"), _habitual("Seagrass")
    (['#ddcc77', '#e69f00', '#ee8866'], ['#117733', '#44aa99', '#009e73'], [])
    """
    parts = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name))
    plain = "".join(letter for letter in parts if not unicodedata.combining(letter)).lower()
    return [color for words, colors in _HABITS if re.search(words, plain) for color in colors]


def _first_apart(colors: Iterable[str], taken: Iterable[str]) -> str | None:
    others = [_lab(color) for color in taken]
    return next((c for c in colors if all(math.dist(_lab(c), other) >= _APART for other in others)), None)


def _farthest(colors: Sequence[str], taken: Sequence[str]) -> str:
    """Of ``colors`` and spread hues the one whose nearest colour of ``taken`` is farthest."""
    others = [_lab(color) for color in taken]
    pool = [*colors, *map(_spread_hue, range(_HUES))]
    return max(pool, key=lambda color: min(math.dist(_lab(color), other) for other in others))


@cache
def _lab(color: str) -> tuple[float, float, float]:
    """CIE Lab of an sRGB colour. Source: IEC 61966-2-1 for sRGB (D65), CIE 15:2004 for Lab."""
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004 - of the norm
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / to_xyz.sum(axis=1)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return float(116 * y - 16), float(500 * (x - y)), float(200 * (y - z))


def _spread_hue(index: int) -> str:
    """Hues by the golden ratio, so that neighbours in the legend differ; three levels of lightness in turn."""
    import colorsys

    red, green, blue = colorsys.hls_to_rgb((index * 0.61803398875) % 1.0, (0.35, 0.55, 0.75)[index % 3], 0.65)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
