from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context

from pipeline.diagnostics.confidence import reliability
from pipeline.diagnostics.failures import AccuracyBy
from pipeline.diagnostics.features import Features
from pipeline.diagnostics.scoring import Score
from pipeline.legend import scheme_for
from pipeline.report.accuracy_figures import examples, per_class
from pipeline.report.data import (
    BlockAccuracy,
    ClassArea,
    ErrorExample,
    Failures,
    LearningPoint,
    MapView,
    PolygonPart,
    ReportData,
    SplitMap,
)
from pipeline.report.page import write_report
from pipeline.report.style import LIGHT

SCHEME = scheme_for(["water", "wood & heath", "field <b>"])[0]


def report_data() -> ReportData:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.repeat(rng.integers(1, 4, (6, 10)), 20, axis=0), 20, axis=1).astype(np.uint8)
    codes[:20, :40] = 0
    image = rng.integers(0, 255, (*codes.shape, 3)).astype(np.uint8)
    figures = dict.fromkeys(SCHEME.names, 0.8)
    matrix = ((50, 3, 1), (2, 40, 4), (0, 5, 60))
    polygons = dict(zip(SCHEME.names, (12, 2, 4), strict=True))
    square = np.array([(0, 0), (0, 30), (30, 30), (30, 0)], dtype=np.float64)
    inside = np.zeros((32, 32), dtype=np.bool_)
    inside[8:20, 8:20] = True
    return ReportData(
        title="A <job> & more",
        scheme=SCHEME,
        views=(MapView("scene", image, codes, (10.0, 15.0)),),
        areas=tuple(ClassArea("scene", name, 10.0 * i) for i, name in enumerate(SCHEME.names, 1)),
        scores=tuple(
            Score(m, right, 0.8, 0.85, figures, figures | {"water": None}, figures, figures, matrix, polygons)
            for m, right in (("network", 0.9), ("forest (bands)", 0.85), ("forest (neighbourhoods)", 0.87))
        ),
        full_reference=(("network", (0.7, 0.6)), ("forest (bands)", (0.65, 0.55))),
        mapped_share=0.9,
        sampling="Held-out training polygons: not a probability sample.",
        history=tuple({"step": i, "loss": 1 / (i + 1), "val_loss": 1.1 / (i + 1)} for i in range(20)),
        learning=(
            LearningPoint(20, 0.4, 0.05, 0.38, 0.39, 0.5, 0.4, 0.45),
            LearningPoint(50, None, None, 0.5, 0.5),
            LearningPoint(80, 0.6, overall_accuracy=0.7),
        ),
        split=SplitMap(
            tuple(
                PolygonPart(i, square + 50 * i, part)
                for i, part in enumerate(("train", "validation", "test", "buffer"))
            ),
            block_m=100.0,
            buffer_m=30.0,
        ),
        features=Features(
            rng.integers(1, 4, 90).astype(np.uint8), *rng.normal(size=(2, 90, 2)).astype(np.float32), (0.5, 0.2)
        ),
        reliability=reliability(rng.uniform(0.3, 1, 200), rng.random(200) < 0.7, bins=10),
        failures=Failures(
            (
                AccuracyBy("pixels to an edge", ("< 2", ">= 2"), np.array([0.6, np.nan]), np.array([30, 0])),
                AccuracyBy("pixels of the patch", ("< 5", ">= 5"), np.array([0.2, 0.9]), np.array([10, 20])),
            ),
            (BlockAccuracy((0.0, 0.0, 9.0, 9.0), 20, 0.4), BlockAccuracy((9.0, 0.0, 18.0, 9.0), 10, 1.0)),
            "scene",
        ),
        examples=(ErrorExample(7, "water", "wood & heath", 0.9, 0.8, image[:32, :32], codes[40:72, :32], inside),),
        ledger=(
            {
                "scene": "scene",
                "acquired_utc": None,
                "invalid_share": 0.25,
                "masks": ["SCL"],
                "bands": [{"band": "red", "scale": 1e-4, "offset": -0.1, "provenance": "BOA_ADD_OFFSET of MTD.xml"}],
                "no_data_share": {"red": 0.125},
                "offset_check": {"state": "plausible", "reason": "dark pixels"},
            },
        ),
        warnings=("two polygons overlap",),
        settings="version: 1\n",
        environment={"python": "3"},
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", report_data())[0]


def test_the_page_holds_all_it_shows_and_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", text) == []
    assert "not a probability sample" in text


def test_a_mean_says_which_classes_it_is_without(page, tmp_path):
    assert "Macro-F1 is without" not in page.read_text(encoding="utf-8")
    data = report_data()
    fewer = replace(data.scores[0], f1=data.scores[0].f1 | {"water": None})
    few = ReportData("few figures", SCHEME, scores=(fewer, data.scores[1]))
    path = write_report(tmp_path / "report.html", few)[0]
    assert "Macro-F1 is without water: no test pixel that can be used." in path.read_text(encoding="utf-8")


def row_of(page, name):
    """The row of a class in the table of accuracies: (its class attribute, cells)."""
    for kind, body in re.findall(r"<tr( class=\"few\")?>(<td>.*?)</tr>", page.read_text(encoding="utf-8"), re.DOTALL):
        if f"</span>{name}" in body:
            return kind, re.findall(r"<td[^>]*>(.*?)</td>", body, re.DOTALL)
    raise AssertionError(name)


def test_figures_of_few_polygons_are_grey(page):
    kind, cells = row_of(page, "wood &amp; heath")
    assert kind
    assert "too few to judge" in cells[0]
    assert cells[1:3] == ["2", "48"]
    kind, cells = row_of(page, "water")
    assert not kind
    assert cells[1:3] == ["12", "52"]


def test_bars_of_few_polygons_are_pale_and_say_so():
    axes = per_class(report_data().scores, SCHEME).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["water", "wood & heath\ntoo few to judge", "field <b>"]
    for bars in axes.containers:
        assert [bar.get_alpha() < 1 for bar in bars] == [False, True, False]


def test_tiles_are_grey_where_most_classes_are_too_few(page, tmp_path):
    assert 'class="tile few"' not in page.read_text(encoding="utf-8")
    data = report_data()
    scores = tuple(replace(item, polygons=dict(zip(SCHEME.names, (3, 1, 2), strict=True))) for item in data.scores)
    text = write_report(tmp_path / "report.html", ReportData("few", SCHEME, scores=scores))[0].read_text("utf-8")
    tiles = re.findall(r'<div class="tile few">.*?</div>', text)
    assert len(tiles) == len(scores) + 1 == text.count('<div class="tile ')
    assert all("6 test polygons" in tile and "too few to judge" in tile for tile in tiles)


def test_few_polygons_or_no_gain_do_not_call_it_calibrated(tmp_path):
    full = report_data()
    data = ReportData("few", SCHEME, scores=full.scores, reliability=full.reliability, uncalibrated=full.reliability)
    text = write_report(tmp_path / "few.html", data)[0].read_text("utf-8")
    assert "18 test polygons can not judge the confidence" in text
    assert "80 % should be right" not in text
    many = tuple(replace(item, polygons=dict.fromkeys(SCHEME.names, 30)) for item in data.scores)
    text = write_report(tmp_path / "same.html", replace(data, scores=many))[0].read_text("utf-8")
    assert "about 80 % should be right" in text
    assert "Here the temperature makes the confidence no truer." in text
    assert "calibrated" not in (tmp_path / "figures" / "reliability.svg").read_text("utf-8")


def test_perfect_figures_of_few_polygons_name_crossval(tmp_path):
    data = report_data()
    score = replace(data.scores[0], users=dict.fromkeys(SCHEME.names, 1.0))
    few = ReportData("few figures", SCHEME, scores=(score, *data.scores[1:]))
    path = write_report(tmp_path / "report.html", few)[0]
    _, cells = row_of(path, "field &lt;b&gt;")
    assert "100 % of 4 polygons: landcover crossval tells more" in cells[0]
    assert "crossval" not in row_of(path, "water")[1][0]


def test_the_network_stands_beside_the_better_forest(page):
    text = page.read_text(encoding="utf-8")
    assert "network against forest (neighbourhoods), the better forest" in text
    assert "<b>+3.0 points</b>overall accuracy<br>macro-F1 +0.000" in text
    assert "18 test polygons, 165 pixels" in text


def test_the_full_reference_stands_beside_the_test_polygons(page):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"<td>network</td><td class=\"group\">90.0 %</td>.*?<td class=\"group\">70.0 %</td>", text)
    assert "Polygons are drawn where the class is plain to see" in text


def test_areas_say_what_share_of_the_scenes_they_cover(page):
    assert "The map covers 90.0% of the scenes; the rest has no data." in page.read_text(encoding="utf-8")


def test_the_figure_of_failures_says_its_pixels(page, tmp_path):
    words = "test pixels of 18 polygons, drawn at random from 165, by their distance"
    assert f"30 {words}" in page.read_text(encoding="utf-8")
    data = report_data()
    by = tuple(replace(part, count=np.array([100, 65])) for part in data.failures.by)
    whole = replace(data, failures=replace(data.failures, by=by))
    text = write_report(tmp_path / "report.html", whole)[0].read_text(encoding="utf-8")
    assert "165 test pixels of 18 polygons by their distance" in text


@pytest.mark.parametrize("history", [({"step": 0.0, "loss": 1.0},), ()])
def test_the_page_names_the_pretrained_encoder(tmp_path, history):
    line = "resnet18 pretrained on clouds (licence Apache-2.0), frozen, gained +0.020"
    text = write_report(tmp_path / "r.html", ReportData("t", SCHEME, history=history, encoder=line))[0].read_text()
    assert text.count(f"Encoder: {line}.") == 1
    assert "Encoder:" not in write_report(tmp_path / "s.html", ReportData("t", SCHEME))[0].read_text()


def test_names_are_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert "A &lt;job&gt; &amp; more" in text
    assert "field <b>" not in text


def test_figures_lie_beside_the_page_as_png_and_svg(page):
    names = {path.name for path in (page.parent / "figures").iterdir()}
    stems = {"areas", "confusion", "per_class", "reliability", "failures", "examples"}
    stems |= {"training", "split", "features", "learning"}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}


def test_the_ledger_is_a_table_of_bands(page):
    text = page.read_text(encoding="utf-8")
    row = re.search(r"<tr><td data-head=\"band\">red</td>.*?</tr>", text, re.DOTALL)[0]
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == ["red", "0.0001", "-0.1", "BOA_ADD_OFFSET of MTD.xml", "12.5%"]
    assert "<dt>invalid share</dt><dd>25.0%</dd>" in text
    assert "<dd>plausible: dark pixels</dd>" in text


def test_warnings_ids_and_settings_are_on_the_page(page):
    text = page.read_text(encoding="utf-8")
    assert "<li>two polygons overlap</li>" in text
    assert "version: 1" in text
    svg = (page.parent / "figures" / "examples.svg").read_text(encoding="utf-8")
    assert "polygon 7" in svg  # matplotlib keeps the words of drawn text as comments


def test_equal_data_gives_equal_figures(page, tmp_path):
    again = write_report(tmp_path / "report.html", report_data())[0]
    for path in sorted((page.parent / "figures").iterdir()):
        assert path.read_bytes() == (again.parent / "figures" / path.name).read_bytes(), path.name


def test_a_run_without_figures_still_has_a_page(tmp_path):
    bare = ReportData("bare", SCHEME)
    assert write_report(tmp_path / "report.html", bare) == (tmp_path / "report.html",)


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def test_on_a_narrow_screen_a_long_path_stays_in_its_card(tmp_path, browser):
    data = ReportData("bare", SCHEME, warnings=("/data/" + "a_long_folder_name" * 9 + "/scene.tif: no nodata",))
    tab = browser.new_page(viewport={"width": 420, "height": 900})
    tab.goto(write_report(tmp_path / "report.html", data)[0].as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate("[...document.querySelectorAll('#warnings li')].every(e => e.scrollWidth <= e.clientWidth)")


def test_titles_of_the_worst_errors_stay_in_their_columns():
    (item,) = report_data().examples[:1]
    worst = replace(item, reference="Complex cultivation patterns with scattered trees", mapped="Broadleaf forest")
    with rc_context(LIGHT):
        figure = examples([worst] * 6, SCHEME)
        figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.width <= figure.bbox.width / 6 + 1
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_and_prints_the_page(page, browser, tmp_path, scheme):
    tab = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=scheme)
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text) if message.type in {"error", "warning"} else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on(
        "request",
        lambda request: problems.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
    )
    tab.goto(page.as_uri())
    clip = "getComputedStyle(document.querySelector('.over')).clipPath"
    before = tab.evaluate(clip)
    tab.locator("input[type=range]").fill("20")
    assert tab.evaluate(clip) != before
    tab.locator("[data-swipe]").scroll_into_view_if_needed()
    box = tab.locator("[data-swipe]").bounding_box()
    tab.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 20)
    assert 75 < float(tab.locator("input[type=range]").input_value()) < 85
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert tab.evaluate(broken) == 0
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = tab.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(30, 36, 40)"}[scheme]
    figure = tab.evaluate("document.querySelector('#areas img').currentSrc")
    assert figure == tab.evaluate(
        f"document.querySelector('#areas {'source' if scheme == 'dark' else 'img'}')"
        f".{'srcset' if scheme == 'dark' else 'src'}"
    )
    for width in (360, 760):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    printed = tmp_path / "report.pdf"
    tab.pdf(path=str(printed))
    assert printed.read_bytes().startswith(b"%PDF")
    assert problems == []
    tab.close()
