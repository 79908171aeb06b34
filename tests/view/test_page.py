"""The page in a real browser: what the user sees and does."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyproj import Geod, Transformer

from pipeline.maps.geotiff import write_values
from pipeline.quantity import Quantity
from pipeline.scenes.opening import open_scene
from pipeline.view.answers import Answers, Basemap, open_viewed
from pipeline.view.server import ViewServer
from tests.fakes.pixels import ArrayPixels
from tests.fakes.viewed_maps import DEGREES, LIBRARY_NOTES, METRES, SCHEME, World, write_world

pytestmark = LIBRARY_NOTES
# Nothing here measures time: this only ends a test that would wait for ever, on a busy machine too.
PATIENCE_S = 240
GREY_PNG = BytesIO()
Image.new("L", (256, 256), 128).save(GREY_PNG, "PNG")
TILES = "[...document.querySelectorAll('.leaflet-tile-container canvas')]"
# Pixels of a pane that are not transparent, and the colours among them.
OPAQUE = """pane => [...document.querySelectorAll(`#left .leaflet-${pane}-pane canvas.leaflet-tile-loaded`)].reduce(
    (sum, tile) => sum + tile.getContext('2d').getImageData(0, 0, 256, 256).data
        .filter((value, i) => i % 4 === 3 && value).length, 0)"""
COLOURS = """pane => { const found = new Set();
    for (const tile of document.querySelectorAll(`#left .leaflet-${pane}-pane canvas.leaflet-tile-loaded`)) {
        const data = tile.getContext('2d').getImageData(0, 0, 256, 256).data;
        for (let i = 0; i < data.length; i += 4) if (data[i + 3]) found.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
    } return [...found]; }"""


@dataclass
class Tab:
    """A page, and everything that went wrong on it."""

    page: Any
    server: ViewServer
    problems: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def hear(self, message: Any) -> None:
        """Errors and warnings; that these tests read canvases back, which the page does not, is no problem of its."""
        if message.type in {"error", "warning"} and "willReadFrequently" not in message.text:
            self.problems.append(message.text)

    def until(self, expression: str, *, patience_s: float = PATIENCE_S) -> None:
        """Wait for a condition; Playwright's own waiting evaluates text, which the page's policy forbids."""
        end = time.monotonic() + patience_s
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(50)

    def settle(self) -> None:
        """Wait until every tile is there."""
        self.page.wait_for_timeout(150)  # moves and zooms start their tiles a moment later
        self.until(f"{TILES}.length > 0 && {TILES}.every(tile => tile.classList.contains('leaflet-tile-loaded'))")

    def click_at(self, world: World, row: int, col: int, *, count: int = 1) -> None:
        lon, lat = Transformer.from_crs(world.grid.crs, "EPSG:4326", always_xy=True).transform(*world.grid.xy(row, col))
        x, y = self.place(lon, lat)
        self.page.mouse.click(x, y, click_count=count)

    def place(self, lon: float, lat: float) -> tuple[float, float]:
        """Where a place is on the screen: found by asking the page what is under the pointer."""
        box = self.page.locator("#left").bounding_box()
        seen = []
        for fx, fy in ((0.25, 0.25), (0.45, 0.75)):
            x, y = box["x"] + fx * box["width"], box["y"] + fy * box["height"]
            self.page.mouse.move(x, y)
            text = self.page.locator("#where").inner_text()
            north, ns, east, ew = re.match(r"([\d.]+)° ([NS]), ([\d.]+)° ([EW])", text).groups()  # type: ignore[union-attr]
            lat_here, lon_here = float(north) * (1 if ns == "N" else -1), float(east) * (1 if ew == "E" else -1)
            seen.append((x, y, lon_here, np.arctanh(np.sin(np.radians(lat_here)))))
        (x0, y0, lon0, m0), (x1, y1, lon1, m1) = seen
        m = np.arctanh(np.sin(np.radians(lat)))
        return float(x0 + (lon - lon0) / (lon1 - lon0) * (x1 - x0)), float(y0 + (m - m0) / (m1 - m0) * (y1 - y0))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    folder = tmp_path_factory.mktemp("page")
    return {
        "metres": write_world(folder / "m", "here", grid=METRES),
        "degrees": write_world(folder / "d", "there", grid=DEGREES, seed=1),
    }


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens maps in a new page; at the end nothing may have gone wrong and no request may have left loopback."""
    opened: list[Tab] = []

    def open_one(*shown: World | Path, basemap: Basemap | None = None, width: int = 960, scheme: str = "light") -> Tab:
        maps = [
            open_viewed(one.class_map, name=one.scene.stem, scene=open_scene(one.scene))
            if isinstance(one, World)
            else open_viewed(one, name=one.stem)
            for one in shown
        ]
        server = ViewServer(Answers(maps, title="A <b>title</b> & more", basemap=basemap))
        threading.Thread(target=server.serve, daemon=True).start()
        look = {"color_scheme": scheme, "reduced_motion": "reduce"}
        page = browser.new_page(viewport={"width": width, "height": 600}, **look)
        page.set_default_timeout(PATIENCE_S * 1000)
        tab = Tab(page, server)
        opened.append(tab)
        page.on("console", tab.hear)
        page.on("pageerror", lambda error: tab.problems.append(str(error)))
        page.on("request", lambda request: tab.asked.append(request.url))
        page.goto(server.url)
        page.wait_for_selector("body[data-ready=yes]")
        tab.settle()
        return tab

    yield open_one
    for tab in opened:
        tab.page.close()
        tab.server.stop()
        tab.server.close()
        assert tab.problems == []
        assert [url for url in tab.asked if not url.startswith(tab.server.url)] == []


@pytest.mark.parametrize("kind", ["metres", "degrees"])
def test_map_and_scene_appear_with_names_and_colours(open_page, worlds, kind):
    tab = open_page(worlds[kind])
    page = tab.page
    assert page.locator("h1").inner_text() == "A <b>title</b> & more"
    assert page.locator("#legend .class .name").all_inner_texts() == list(SCHEME.names)
    assert page.evaluate(OPAQUE, "stack") > 10_000
    assert page.evaluate(OPAQUE, "compare") > 10_000
    page.locator("[data-row=scene] input[type=checkbox]").click()
    tab.settle()
    assert set(page.evaluate(COLOURS, "stack")) == {",".join(map(str, item.rgb)) for item in SCHEME.classes}
    assert re.fullmatch(r"[\d.]+ k?m", page.locator(".leaflet-control-scale-line").inner_text())
    assert page.locator(".leaflet-control-attribution").first.inner_text().startswith("Leaflet")


def test_values_without_classes_have_ramp_and_numbers(open_page, tmp_path):
    values = np.linspace(0.2, 0.4, METRES.width, dtype=np.float32) * np.ones((3, METRES.height, 1), dtype=np.float32)
    paths = [tmp_path / f"{step}.tif" for step in ("first", "second")]
    for path in paths:
        write_values(path, ArrayPixels(values), grid=METRES, quantity=Quantity("ndvi", "", 0.0, 1.0))
    tab = open_page(*paths)
    page = tab.page
    assert page.locator("[data-row]").count() == 1
    assert page.locator("#legend h2").all_inner_texts() == ["NDVI"]
    least, _, most = map(float, page.locator("#legend .ticks span").all_inner_texts())
    assert (least, most) == pytest.approx(np.percentile(values, [2, 98]), abs=0.001)
    shown = {tuple(map(int, color.split(","))) for color in page.evaluate(COLOURS, "stack")}
    assert len(shown) > 50
    assert {(68, 1, 84), (253, 231, 37)} & shown
    page.mouse.click(500, 300)
    page.wait_for_selector("#card:not([hidden])")
    assert page.locator("#card .bars .name").all_inner_texts()[:3] == ["ndvi", "5 % quantile", "95 % quantile"]
    assert 0.2 <= float(page.locator("#card .bars .figure").first.inner_text()) <= 0.4


def test_the_swipe_moves_by_mouse_and_keys(open_page, worlds):
    page = open_page(worlds["metres"]).page
    clip = "getComputedStyle(document.querySelector('.leaflet-compare-pane')).clip"
    handle = page.locator("#swipe")
    before, box = page.evaluate(clip), handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, 300, steps=4)
    page.mouse.up()
    after = page.evaluate(clip)
    assert after != before
    assert float(handle.get_attribute("aria-valuenow")) > 60
    handle.press("Home")
    assert handle.get_attribute("aria-valuenow") == "0"
    assert page.evaluate(clip) != after
    page.click("[data-mode=off]")
    assert handle.is_hidden()
    assert page.evaluate(clip) == "auto"


def test_the_legend_switches_classes_off_without_asking_again(open_page, worlds):
    tab = open_page(worlds["metres"])
    page = tab.page
    page.locator("[data-row=scene] input[type=checkbox]").click()
    tab.settle()
    asked = len(tab.asked)
    water = ",".join(map(str, SCHEME.classes[0].rgb))
    page.locator("#legend .class[data-code='1'] input").click()
    assert water not in page.evaluate(COLOURS, "stack")
    page.locator("#legend button", has_text="none").click()
    assert page.evaluate(COLOURS, "stack") == []
    page.locator("#legend button", has_text="all").click()
    assert water in page.evaluate(COLOURS, "stack")
    assert len(tab.asked) == asked


def test_opacity_and_the_confidence_layer(open_page, worlds):
    tab = open_page(worlds["degrees"])
    page = tab.page
    row = page.locator("[data-row=percent]")
    assert row.locator("select option").all_inner_texts() == [
        "Confidence",
        *(f"Probability of {name}" for name in SCHEME.names),
    ]
    row.locator("input[type=checkbox]").click()
    row.locator("input[type=range]").fill("40")
    tab.settle()
    opacity = "[...document.querySelectorAll('#left .leaflet-stack-pane .leaflet-layer')].map(e => e.style.opacity)"
    assert "0.4" in page.evaluate(opacity)
    assert page.locator("#legend .ramp").count() == 1
    row.locator("select").select_option("probability-2")
    tab.settle()
    assert any("/probability-2/" in url for url in tab.asked)


@pytest.mark.parametrize("kind", ["metres", "degrees"])
def test_a_click_shows_the_values_of_a_pixel(open_page, worlds, kind):
    world, tab = worlds[kind], open_page(worlds[kind])
    row, col = 126, 66  # in the middle of a block
    tab.click_at(world, row, col)
    card = tab.page.locator("#card")
    card.wait_for()
    assert card.locator(".found").inner_text() == SCHEME.by_code(int(world.codes[row, col])).name
    found_row, found_col = (int(n) for n in re.search(r"row (\d+), column (\d+)", card.inner_text()).groups())
    assert (abs(found_row - row), abs(found_col - col)) <= (1, 1)
    bars = card.locator(".bars").first.inner_text()
    assert f"{world.confidence[found_row, found_col]} %" in bars
    assert card.locator(".bars").nth(1).locator(".bar").count() == len(SCHEME)
    values = [float(text) for text in card.locator(".bands .figure").all_inner_texts()]
    assert values == pytest.approx(world.reflectance[:, found_row, found_col].tolist(), abs=6e-5)
    assert "reflectance" in card.inner_text()
    assert card.locator("svg circle").count() == 5
    tab.page.keyboard.press("Escape")
    assert card.is_hidden()


def test_a_click_where_nothing_was_seen_says_so(open_page, worlds):
    tab = open_page(worlds["metres"])
    tab.click_at(worlds["metres"], 8, 40)
    card = tab.page.locator("#card")
    card.wait_for()
    assert "nodata" in card.inner_text()
    assert "No observation" in card.inner_text()


def test_distance_and_area_are_those_of_the_ellipsoid(open_page, worlds):
    world, tab = worlds["metres"], open_page(worlds["metres"])
    page = tab.page
    corners = [(60, 40), (60, 90), (120, 90)]
    geo = [
        Transformer.from_crs(world.grid.crs, "EPSG:4326", always_xy=True).transform(*world.grid.xy(*corner))
        for corner in corners
    ]
    places = [tab.place(*corner) for corner in geo]
    page.click("[data-measure=line]")
    for x, y in places:
        page.mouse.click(x, y)
    page.keyboard.press("Enter")
    expected = Geod(ellps="WGS84").line_length(*zip(*geo, strict=True))
    tab.until("document.querySelector('#measured b') !== null")
    page.wait_for_timeout(200)
    found = float(page.locator("#measured b").inner_text().removesuffix(" m").replace(",", ""))
    assert found == pytest.approx(expected, rel=0.02)  # a click is to a pixel of the screen
    assert page.locator("#card").is_hidden()
    page.click("[data-measure=area]")
    for x, y in places[:-1]:
        page.mouse.click(x, y)
    page.mouse.dblclick(*places[-1])
    tab.until("Boolean(document.querySelector('#measured b')?.innerText.includes('ha'))")
    page.wait_for_timeout(200)
    area = abs(Geod(ellps="WGS84").polygon_area_perimeter(*zip(*geo, strict=True))[0]) / 1e4
    found = float(page.locator("#measured b").inner_text().split(" ")[0].replace(",", ""))
    assert found == pytest.approx(area, rel=0.03)
    assert page.locator("#left .leaflet-tooltip").inner_text() == page.locator("#measured b").inner_text()
    page.click("[data-measure=clear]")
    assert page.locator(".leaflet-tooltip").count() == 0


def test_pan_and_zoom_fetch_further_tiles(open_page, worlds):
    tab = open_page(worlds["metres"])
    asked = len(tab.asked)
    tab.page.locator(".leaflet-control-zoom-in").click()
    tab.settle()
    tab.page.mouse.move(600, 400)
    tab.page.mouse.down()
    tab.page.mouse.move(450, 300, steps=5)
    tab.page.mouse.up()
    tab.settle()
    assert len(tab.asked) > asked
    assert tab.page.locator("#card").is_hidden()  # a drag is no click


def test_several_maps_switched_and_side_by_side(open_page, worlds):
    tab = open_page(worlds["metres"], worlds["degrees"])
    page = tab.page
    page.select_option("#map-choice", "1")
    tab.settle()
    assert "EPSG:4326" in page.locator("#about").inner_text()
    assert page.evaluate(OPAQUE, "stack") > 10_000
    page.click("[data-mode=beside]")
    page.select_option("#compare-choice", "1/conf")
    tab.settle()
    right = "document.querySelectorAll('#right canvas.leaflet-tile-loaded').length"
    assert page.evaluate(right) > 0
    assert "there: Confidence" in page.locator("#badge-right").inner_text()
    page.locator(".leaflet-control-zoom-in").click()
    tab.settle()
    box = page.locator("#right").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#card").wait_for()
    assert page.locator("#card .one").count() >= 1


@pytest.mark.parametrize(("width", "scheme"), [(1366, "dark"), (1920, "light"), (700, "light"), (360, "dark")])
def test_the_page_fits_its_window_and_colours(open_page, worlds, width, scheme):
    page = open_page(worlds["metres"], width=width, scheme=scheme).page
    if width < 760:
        page.locator("#toggle-panel").click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelector('#panel').scrollWidth <= document.querySelector('#panel').clientWidth")
    red, _, _ = (
        int(n)
        for n in re.findall(
            r"\d+", page.evaluate("getComputedStyle(document.querySelector('#panel')).backgroundColor")
        )[:3]
    )
    assert (red < 80) == (scheme == "dark")
    page.locator("#toggle-panel").click()
    assert page.locator("#panel").is_hidden()


def test_on_a_phone_the_panel_folds(open_page, worlds):
    page = open_page(worlds["metres"], width=390).page
    panel, button = page.locator("#panel"), page.locator("#toggle-panel")
    assert panel.is_hidden()
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    assert panel.is_visible()
    assert button.get_attribute("aria-expanded") == "true"
    box = panel.bounding_box()
    page.mouse.click(box["width"] + 30, 400)
    assert panel.is_hidden()


class Provider(BaseHTTPRequestHandler):
    """A tile provider: one grey pixel for every tile, to whichever page asks."""

    def do_GET(self) -> None:
        """Answer with the pixel."""
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        self.wfile.write(GREY_PNG.getvalue())

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal of the tests."""


@pytest.fixture
def provider() -> Iterator[str]:
    """The address of a tile provider that is not the page's own server (another port of loopback)."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_basemap_is_asked_for_only_where_the_user_named_one(open_page, worlds, provider):
    tab = open_page(worlds["metres"], basemap=Basemap(f"{provider}/{{z}}/{{x}}/{{y}}", "<i>Some</i> & Co"))
    tab.until("document.querySelectorAll('#left img.leaflet-tile-loaded').length > 0")
    named = [url for url in tab.asked if url.startswith(provider)]
    assert named
    assert all(tab.server.token not in url for url in named)
    assert "<i>Some</i> & Co" in tab.page.locator("#left .leaflet-control-attribution").inner_text()
    tab.page.goto("about:blank")  # nothing is asked for after the list has been read
    tab.asked[:] = [url for url in tab.asked if not url.startswith(provider) and url != "about:blank"]


def test_when_the_server_has_ended_the_page_says_so(open_page, worlds):
    tab = open_page(worlds["metres"])
    tab.page.context.set_offline(True)  # what a page sees of a server that has ended
    tab.click_at(worlds["metres"], 90, 60)
    tab.page.locator("#notice").wait_for()
    assert "landcover view" in tab.page.locator("#notice").inner_text()
    tab.problems.clear()  # the browser's own word for it
