"""Class schemes: codes and indices are each other's inverse, bad schemes are refused, known legends are recognised."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pipeline.errors import LegendError
from pipeline.legend import IGNORE_INDEX, KNOWN_LEGENDS, NODATA, UNLABELLED, ClassScheme, LandClass, scheme_for


def scheme(*codes: int) -> ClassScheme:
    return ClassScheme(tuple(LandClass(code, f"class {code}", "#102030") for code in codes))


@given(st.lists(st.integers(1, 254), min_size=1, max_size=254, unique=True))
def test_codes_and_indices_are_each_others_inverse(codes: list[int]) -> None:
    some = scheme(*codes)
    assert some.index_to_code[some.code_to_index[codes]].tolist() == codes
    others = np.setdiff1d(np.arange(256), codes)
    assert (some.code_to_index[others] == IGNORE_INDEX).all()
    assert (some.index_to_code[len(codes) :] == NODATA).all()


@pytest.mark.parametrize("code", [NODATA, UNLABELLED, -1, 256])
def test_codes_that_mean_something_else_are_refused(code: int) -> None:
    with pytest.raises(LegendError, match="code of class"):
        LandClass(code, "water", "#0000ff")


@pytest.mark.parametrize(("name", "color"), [("", "#0000ff"), ("  ", "#0000ff"), ("water", "blue"), ("water", "#00F")])
def test_classes_without_name_or_colour_are_refused(name: str, color: str) -> None:
    with pytest.raises(LegendError):
        LandClass(1, name, color)


def test_schemes_that_say_one_thing_twice_are_refused() -> None:
    with pytest.raises(LegendError, match="code used twice: 3"):
        ClassScheme((LandClass(3, "a", "#000000"), LandClass(3, "b", "#000001")))
    with pytest.raises(LegendError, match="name used twice: a"):
        ClassScheme((LandClass(3, "a", "#000000"), LandClass(4, "a", "#000001")))
    with pytest.raises(LegendError, match="number of classes"):
        ClassScheme(())


def test_the_hash_changes_with_every_part_and_json_keeps_all() -> None:
    base = scheme(1, 2)
    changed = [scheme(2, 1), scheme(1, 3), ClassScheme((*base.classes[:1], LandClass(2, "class 2", "#102031")))]
    assert len({item.hash for item in (base, *changed)}) == 4
    assert ClassScheme.from_json(base.to_json()) == base


def test_json_that_is_no_legend_is_refused() -> None:
    with pytest.raises(LegendError, match="not a list"):
        ClassScheme.from_json([{"code": 1}])


@pytest.mark.parametrize("source", KNOWN_LEGENDS)
def test_known_legends_are_recognised_whatever_the_spelling(source: str) -> None:
    rows = KNOWN_LEGENDS[source]
    found, name = scheme_for([row[1].upper().replace("_", " ") for row in rows])
    assert name == source
    assert [(item.code, item.color) for item in found.classes] == [(code, color) for code, _, color in rows]


def test_unknown_names_get_codes_from_one_and_different_colours() -> None:
    found, name = scheme_for([f"thing {i}" for i in range(40)])
    assert name is None
    assert found.codes == tuple(range(1, 41))
    assert len({item.color for item in found.classes}) == 40


def colors_of(*names: str) -> list[str]:
    return [item.color for item in scheme_for(names)[0].classes]


def lab(color: str) -> np.ndarray:
    """Lab by Little CMS."""
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    seen = ImageCms.applyTransform(Image.new("RGB", (1, 1), color), to_lab)
    light, a, b = np.frombuffer(seen.tobytes(), np.uint8)
    return np.array([light / 2.55, int(a.view(np.int8)), int(b.view(np.int8))])


@pytest.mark.parametrize(
    "names",
    [
        ["Emergent Wetland", "Scrub-Shrub Wetland", "Herbaceous", "WetSand", "Sand", "Forested Wetland", "Haline"],
        ["marsh", "bog", "mangroves", "swamp", "sea", "river"],
        ["crops", "farms", "wheat", "maize", "sand", "rock", "shrub", "heath", "scrub"],
        [f"thing {i}" for i in range(20)],
        [f"thing {i}" for i in range(40)],
    ],
)
def test_colours_of_a_legend_can_be_told_apart(names: list[str]) -> None:
    found = [lab(color) for color in colors_of(*names)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(found, 2)) > 14


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("Nadelwald", "forest"), ("Wälder", "forest"), ("Forêt", "forest"), ("bosque denso", "forest"),
        ("Gewässer", "water"), ("cours d'eau", "water"), ("agua", "water"), ("OpenWater", "water"),
        ("Feuchtwiese", "grass"), ("prairie", "grass"), ("Äcker", "crops"), ("cultivos", "crops"), ("Rice", "crops"),
        ("Siedlung", "built"), ("Bâti", "built"), ("urbano", "built"), ("wet_sand", "sand"), ("snow/ice", "snow"),
    ],
)  # fmt: skip
def test_a_word_gives_its_habitual_colour(name: str, like: str) -> None:
    assert colors_of(name, "other") == colors_of(like, "other")


@pytest.mark.parametrize("name", ["Seagrass", "Sealed", "Treeless", "Spice", "Bureau", "Laundry", "Electricity"])
def test_a_word_inside_another_gives_no_habitual_colour(name: str) -> None:
    assert colors_of("water", "trees", name) == colors_of("water", "trees", "unknown")


def test_meadow_farm_and_scrub_are_not_three_yellows() -> None:
    found = [lab(color) for color in colors_of("meadow", "farm", "scrub")]
    assert min(np.linalg.norm(a - b) for a, b in combinations(found, 2)) > 40


def test_the_colours_of_the_sample_data_stay() -> None:
    names = ("Water", "Conifer forest", "Broadleaf forest", "Grassland", "Cropland", "Bare soil", "Orchard", "Built-up")
    expected = ["#0072b2", "#117733", "#44aa99", "#bbcc33", "#f0e442", "#ddcc77", "#aa4499", "#d55e00"]
    assert colors_of(*names) == expected


def test_lookups_name_what_there_is() -> None:
    assert scheme(4).by_code(4).name == "class 4"
    assert scheme(4).by_name("class 4").rgb == (16, 32, 48)
    with pytest.raises(LegendError, match="class 4"):
        scheme(4).by_name("class 5")
    with pytest.raises(LegendError, match="one of 4"):
        scheme(4).by_code(5)
