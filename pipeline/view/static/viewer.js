// The page: which layers are on which map, and what the user's hands do to them.

import { TileLayer, classTable, outlineTable, rampTable } from "./layers.js";
import { classLegend, make, rampLegend } from "./legend.js";
import { Measure, areaText, lengthText } from "./measure.js";
import { degrees, fillCard } from "./point.js";

const byId = (id) => document.getElementById(id);
const PICTURES = { true: "Scene, true colour", false: "Scene, false colour" };

const info = await (await fetch("maps.json")).json();
const state = {
  map: 0,
  mode: "off",
  compare: null, // "number/layer"
  at: 0.5, // of the swipe
  hidden: new Map(), // legend -> codes that are switched off
  rows: {
    percent: { on: false, opacity: 1, id: null },
    objects: { on: true, opacity: 1, id: "objects" },
    classes: { on: true, opacity: 1, id: "lc" },
    scene: { on: true, opacity: 1, id: null },
    basemap: { on: true, opacity: 1 },
  },
};

// ---- what there is ----
const current = () => info.maps[state.map];
const BY_CLASS = ["lc", "objects"];
const has = (map, id) => map.layers.some((layer) => layer.id === id);
const layersOf = (map) => map.layers.filter((layer) => !BY_CLASS.includes(layer.id));
const picturesOf = (map) => Object.keys(map.scene?.pictures ?? {});
const everyLayer = (map) => [...picturesOf(map), ...map.layers.map((layer) => layer.id)];
function labelOf(map, id) {
  if (id in PICTURES) {
    const bands = map.scene.pictures[id];
    const usual = id === "false" || ["red", "green", "blue"].every((word, i) => bands[i].startsWith(word));
    if (usual) return PICTURES[id];
    return new Set(bands).size === 1 ? `Scene, band ${bands[0]}` : `Scene: ${bands.join(", ")}`;
  }
  return map.layers.find((layer) => layer.id === id).label;
}
function hiddenOf(map) {
  if (!state.hidden.has(map.legend)) state.hidden.set(map.legend, new Set());
  return state.hidden.get(map.legend);
}
function tableOf(map, id) {
  if (id in PICTURES) return null;
  if (BY_CLASS.includes(id)) return (id === "lc" ? classTable : outlineTable)(map.classes, hiddenOf(map));
  return rampTable(map.layers.find((layer) => layer.id === id));
}

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}
const onProblem = (error) => notice(error instanceof TypeError ? "The viewer has ended. Start landcover view again and open its new address." : error.message);

// ---- the two maps ----
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
function makeMap(id, { zoomControl }) {
  const map = L.map(id, {
    zoomControl, fadeAnimation: !still, zoomAnimation: !still, inertia: !still, markerZoomAnimation: !still,
    minZoom: 1, maxZoom: 22, zoomSnap: 0.5,
  });
  map.attributionControl.setPrefix('<a href="leaflet.LICENSE.txt">Leaflet</a>');
  for (const [name, z] of [["stack", 210], ["compare", 220]]) map.createPane(name).style.zIndex = z;
  byId(id).classList.add("values");
  return map;
}
const left = makeMap("left", { zoomControl: true });
const right = makeMap("right", { zoomControl: false });
const maps = [left, right];
L.control.scale({ imperial: false, maxWidth: 140 }).addTo(left);
let following = false;
for (const [from, to] of [[left, right], [right, left]]) {
  from.on("move", () => {
    if (following || byId("right").hidden) return;
    following = true;
    to.setView(from.getCenter(), from.getZoom(), { animate: false });
    following = false;
  });
}

const escaped = (text) => make("span", { text }).innerHTML;
const made = new Map();
/** The layer of one place on the page, made once. */
function layerFor(side, pane, number, id) {
  const key = `${side}:${pane}:${number}/${id}`;
  if (!made.has(key)) {
    const map = info.maps[number];
    const [west, south, east, north] = map.bounds;
    made.set(key, new TileLayer(`tile/${number}/${id}`, {
      pane, table: tableOf(map, id), bounds: [[south, west], [north, east]], onProblem, keepBuffer: 1,
      attribution: escaped(id in PICTURES ? map.scene.credit : ""), number, id,
    }));
  }
  return made.get(key);
}
function basemapFor(side) {
  if (!made.has(`${side}:basemap`)) {
    made.set(`${side}:basemap`, L.tileLayer(info.basemap.url, {
      attribution: escaped(info.basemap.credit), referrerPolicy: "no-referrer", pane: "stack", zIndex: 1, maxNativeZoom: 18,
    }));
  }
  return made.get(`${side}:basemap`);
}

/** Puts exactly the wanted layers on the maps. */
function refresh() {
  const wanted = [[], []];
  const add = (side, pane, number, id, opacity, zIndex) => {
    const layer = layerFor(side, pane, number, id);
    wanted[side].push(layer);
    layer.setOpacity(opacity).setZIndex(zIndex);
  };
  const { percent, objects, classes, scene, basemap } = state.rows;
  if (info.basemap && basemap.on) {
    wanted[0].push(basemapFor(0).setOpacity(basemap.opacity));
    if (state.mode === "beside") wanted[1].push(basemapFor(1).setOpacity(basemap.opacity));
  }
  if (scene.id && scene.on) add(0, "stack", state.map, scene.id, scene.opacity, 2);
  if (has(current(), "lc") && classes.on) add(0, "stack", state.map, "lc", classes.opacity, 3);
  if (percent.id && percent.on) add(0, "stack", state.map, percent.id, percent.opacity, 4);
  if (has(current(), "objects") && objects.on) add(0, "stack", state.map, "objects", objects.opacity, 5);
  if (state.mode !== "off" && state.compare) {
    const [number, id] = state.compare.split("/");
    add(state.mode === "swipe" ? 0 : 1, "compare", Number(number), id, 1, 6);
  }
  maps.forEach((map, side) => {
    const stale = [...made.values()].filter((layer) => map.hasLayer(layer) && !wanted[side].includes(layer));
    stale.forEach((layer) => layer.remove());
    wanted[side].filter((layer) => !map.hasLayer(layer)).forEach((layer) => layer.addTo(map));
  });
  showSwipe();
}

function recolour() {
  for (const layer of made.values()) {
    const { id, number } = layer.options;
    if (BY_CLASS.includes(id)) layer.recolour(tableOf(info.maps[number], id));
  }
  showLegend();
}

// ---- swipe ----
function showSwipe() {
  const swiping = state.mode === "swipe" && Boolean(state.compare);
  const stack = left.getPane("stack");
  const compare = left.getPane("compare");
  byId("swipe").hidden = !swiping;
  for (const id of ["badge-left", "badge-right"]) byId(id).hidden = state.mode === "off" || !state.compare;
  if (state.mode !== "off" && state.compare) showBadges();
  if (!swiping) {
    stack.style.clip = compare.style.clip = "";
    return;
  }
  const size = left.getSize();
  const x = Math.round(size.x * state.at);
  const corner = left.containerPointToLayerPoint([0, 0]);
  const [top, bottom] = [corner.y, corner.y + size.y];
  stack.style.clip = `rect(${top}px, ${corner.x + x}px, ${bottom}px, ${corner.x}px)`;
  compare.style.clip = `rect(${top}px, ${corner.x + size.x}px, ${bottom}px, ${corner.x + x}px)`;
  byId("swipe").style.left = `${x}px`;
  byId("swipe").setAttribute("aria-valuenow", Math.round(100 * state.at));
}
function showBadges() {
  const shown = [];
  const { percent, classes, scene } = state.rows;
  if (percent.id && percent.on) shown.push(labelOf(current(), percent.id));
  if (has(current(), "lc") && classes.on) shown.push(labelOf(current(), "lc"));
  else if (scene.id && scene.on) shown.push(labelOf(current(), scene.id));
  const [number, id] = state.compare.split("/");
  const other = info.maps[Number(number)];
  const several = info.maps.length > 1;
  byId("badge-left").textContent = `${several ? `${current().name}: ` : ""}${shown.join(" over ")}`;
  byId("badge-left").hidden = !shown.length;
  byId("badge-right").textContent = `${several ? `${other.name}: ` : ""}${labelOf(other, id)}`;
  const at = state.mode === "swipe" ? state.at * left.getSize().x : byId("right").offsetLeft;
  for (const id of ["badge-left", "badge-right"]) byId(id).style.left = `${at}px`;
}
function moveSwipe(part) {
  state.at = Math.min(Math.max(part, 0), 1);
  showSwipe();
}
left.on("move zoomend resize viewreset", showSwipe);
const handle = byId("swipe");
L.DomEvent.disableClickPropagation(handle);
handle.addEventListener("pointerdown", (event) => {
  handle.setPointerCapture(event.pointerId);
  event.preventDefault();
  handle.focus({ preventScroll: true });
});
handle.addEventListener("pointermove", (event) => {
  if (!handle.hasPointerCapture(event.pointerId)) return;
  const box = byId("left").getBoundingClientRect();
  moveSwipe((event.clientX - box.left) / box.width);
});
handle.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  moveSwipe(state.at + step);
});

// ---- panel ----
function rowOf(name, { label, choices, chosen, choose, hint = "" }) {
  const row = state.rows[name];
  const box = make("input", { type: "checkbox", "aria-label": `Show ${label}` });
  box.checked = row.on;
  let title = make("span", { className: "name", text: label });
  if (choices.length > 1) {
    title = make("select", { "aria-label": label }, ...choices.map(([value, text]) => make("option", { value, text })));
    title.value = chosen;
    title.addEventListener("change", () => { row.on = true; choose(title.value); });
  } else title.addEventListener("click", () => box.click());
  title.title = hint;
  const slider = make("input", { type: "range", min: 0, max: 100, "aria-label": `Opacity of ${label}` });
  slider.value = Math.round(100 * row.opacity);
  const shown = make("output", { text: `${slider.value} %` });
  const element = make("div", { className: `row${row.on ? "" : " off"}`, "data-row": name }, box, title,
    make("div", { className: "dim" }, slider, shown));
  box.addEventListener("change", () => { row.on = box.checked; element.classList.toggle("off", !row.on); refresh(); showLegend(); });
  slider.addEventListener("input", () => {
    row.opacity = slider.value / 100;
    shown.textContent = `${slider.value} %`;
    if (!row.on) { row.on = box.checked = true; element.classList.remove("off"); showLegend(); }
    refresh();
  });
  return element;
}
function showRows() {
  const map = current();
  const { percent, scene } = state.rows;
  const rows = [];
  const pick = (row) => (value) => { row.id = value; showAll(); };
  if (percent.id) {
    const choices = layersOf(map).map((layer) => [layer.id, layer.label]);
    rows.push(rowOf("percent", { label: labelOf(map, percent.id), choices, chosen: percent.id, choose: pick(percent) }));
  }
  if (has(map, "objects")) rows.push(rowOf("objects", { label: labelOf(map, "objects"), choices: [] }));
  if (has(map, "lc")) rows.push(rowOf("classes", { label: labelOf(map, "lc"), choices: [] }));
  if (scene.id) {
    const choices = picturesOf(map).map((id) => [id, labelOf(map, id)]);
    rows.push(rowOf("scene", {
      label: labelOf(map, scene.id), choices, chosen: scene.id, choose: pick(scene),
      hint: `red, green and blue show ${map.scene.pictures[scene.id].join(", ")}`,
    }));
  }
  if (info.basemap) rows.push(rowOf("basemap", { label: "Basemap", choices: [] }));
  byId("rows").replaceChildren(...rows);
}
function showCompare() {
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === state.mode);
  const groups = info.maps.map((map, number) => {
    const options = everyLayer(map).map((id) => make("option", { value: `${number}/${id}`, text: labelOf(map, id) }));
    return info.maps.length > 1 ? make("optgroup", { label: map.name }, ...options) : options;
  });
  byId("compare-choice").replaceChildren(...groups.flat());
  byId("compare-choice").value = state.compare;
  byId("compare-box").hidden = state.mode === "off";
  const beside = state.mode === "beside";
  if (byId("right").hidden === beside) {
    byId("right").hidden = !beside;
    const center = left.getCenter();
    maps.forEach((map) => map.invalidateSize({ animate: false, pan: false }));
    left.setView(center, left.getZoom(), { animate: false });
    right.setView(center, left.getZoom(), { animate: false });
  }
}
function showLegend() {
  const map = current();
  const blocks = [];
  const several = info.maps.length > 1;
  const classes = (one) => classLegend(one, hiddenOf(one), { title: several ? `Legend: ${one.name}` : "Legend", changed: recolour });
  const shown = BY_CLASS.some((id) => has(map, id) && state.rows[id === "lc" ? "classes" : id].on);
  if (shown) blocks.push(classes(map));
  const ramps = [];
  if (state.rows.percent.id && state.rows.percent.on) ramps.push(map.layers.find((layer) => layer.id === state.rows.percent.id));
  if (state.mode !== "off" && state.compare) {
    const [number, id] = state.compare.split("/");
    const other = info.maps[Number(number)];
    if (BY_CLASS.includes(id) && (!shown || other.legend !== map.legend)) blocks.push(classes(other));
    else if (!(id in PICTURES) && !BY_CLASS.includes(id)) ramps.push(other.layers.find((layer) => layer.id === id));
  }
  const known = new Map(ramps.map((layer) => [layer.label, layer]));
  byId("legend").replaceChildren(...blocks, ...[...known.values()].map(rampLegend));
  byId("legend").hidden = !byId("legend").children.length;
}
function showAbout() {
  const map = current();
  const [x, y] = map.pixel_m;
  const size = Math.abs(x - y) < 0.01 * x ? `${Number(x.toPrecision(4))} m` : `${Number(x.toPrecision(4))} × ${Number(y.toPrecision(4))} m`;
  const when = map.scene?.acquired ? ` · ${map.scene.acquired}` : "";
  byId("about").textContent = `${map.size[1].toLocaleString("en")} × ${map.size[0].toLocaleString("en")} pixels of ${size} · ${map.crs}${when}`;
}
function showAll() {
  showAbout();
  showRows();
  showCompare();
  refresh();
  showLegend();
}

/** Another map: what was shown of the old one is shown of the new one, as far as it has it. */
function chooseMap(number) {
  const before = state.map;
  state.map = number;
  const map = current();
  const { percent, scene } = state.rows;
  const keep = (id, have) => (have.includes(id) ? id : have[0] ?? null);
  percent.id = keep(percent.id, layersOf(map).map((layer) => layer.id));
  scene.id = keep(scene.id, picturesOf(map));
  const [other, id] = (state.compare ?? "/").split("/");
  if (state.compare && Number(other) === before) state.compare = `${number}/${keep(id, everyLayer(map))}`;
  const [west, south, east, north] = map.bounds;
  const bounds = L.latLngBounds([[south, west], [north, east]]);
  if (!left._loaded || !left.getBounds().intersects(bounds)) left.fitBounds(bounds, { animate: false, padding: [12, 12] });
  showAll();
}

byId("map-choice").append(...info.maps.map((map, number) => make("option", { value: number, text: map.name })));
byId("map-choice").addEventListener("change", (event) => { chooseMap(Number(event.target.value)); closeCard(); });
byId("map-box").hidden = info.maps.length < 2;
for (const button of document.querySelectorAll("[data-mode]")) {
  button.addEventListener("click", () => { state.mode = button.dataset.mode; showAll(); });
}
byId("compare-choice").addEventListener("change", (event) => { state.compare = event.target.value; showAll(); });
const narrow = matchMedia("(max-width: 760px)");
function fold(folded) {
  document.body.classList.toggle("wide", folded);
  byId("toggle-panel").setAttribute("aria-expanded", !folded);
  maps.forEach((map) => map.invalidateSize({ animate: false }));
  showSwipe();
}
byId("toggle-panel").addEventListener("click", () => fold(!document.body.classList.contains("wide")));
// On a phone the panel lies on the map: folded until asked for, and again when the map is touched.
narrow.addEventListener("change", () => fold(narrow.matches));
maps.forEach((map) => map.on("mousedown dragstart", () => { if (narrow.matches) fold(true); }));
L.DomEvent.disableClickPropagation(byId("toggle-panel"));

// ---- measure ----
const measure = new Measure(maps, (kind, found) => {
  const out = byId("measured");
  const buttons = document.querySelectorAll("[data-measure]");
  if (kind === "cleared") out.textContent = "Geodesic, on the WGS 84 ellipsoid.";
  if (kind === "line") out.replaceChildren(make("b", { text: lengthText(found.length_m) }));
  if (kind === "area") out.replaceChildren(make("b", { text: areaText(found.area_ha) }), ` · perimeter ${lengthText(found.length_m)}`);
  if (kind === "cleared" || kind === "done") {
    buttons.forEach((button) => button.setAttribute("aria-pressed", "false"));
    document.body.classList.remove("measuring");
  }
});
for (const button of document.querySelectorAll("[data-measure]")) {
  button.addEventListener("click", () => {
    const kind = button.dataset.measure;
    if (kind === "clear" || measure.kind === kind) { measure.clear(); return; }
    measure.start(kind);
    button.setAttribute("aria-pressed", "true");
    document.body.classList.add("measuring");
    byId("measured").textContent = "Click the corners; a double click or Enter ends, Esc clears.";
  });
}

// ---- clicks ----
const marks = maps.map(() => L.circleMarker([0, 0], { radius: 6, color: "#000", weight: 1.5, fillColor: "#fff", fillOpacity: 0.9, interactive: false }));
const pointers = maps.map(() => L.circleMarker([0, 0], { radius: 5, color: "#fff", weight: 2, fill: false, interactive: false }));
let clicks = 0;
function closeCard() {
  clicks += 1;
  byId("card").hidden = true;
  marks.forEach((mark) => mark.remove());
}
async function ask(latlng) {
  clicks += 1;
  const mine = clicks;
  const numbers = [...new Set([state.map, ...(state.mode !== "off" && state.compare ? [Number(state.compare.split("/")[0])] : [])])];
  marks.forEach((mark, side) => mark.setLatLng(latlng).addTo(maps[side]));
  const place = latlng.wrap();
  const answers = await Promise.all(numbers.map(async (number) => {
    const response = await fetch(`point/${number}?lon=${place.lng}&lat=${place.lat}`);
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    return found;
  }));
  if (mine === clicks) fillCard(byId("card"), latlng, answers, numbers.map((number) => info.maps[number]), closeCard);
}
maps.forEach((map, side) => {
  map.on("click", ({ latlng }) => { if (!measure.click(map, latlng)) ask(latlng).catch(onProblem); });
  map.on("mousemove", ({ latlng }) => {
    byId("where").textContent = degrees(latlng);
    if (state.mode === "beside") pointers[1 - side].setLatLng(latlng).addTo(maps[1 - side]);
  });
  map.on("mouseout", () => { byId("where").textContent = ""; pointers.forEach((pointer) => pointer.remove()); });
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { if (measure.kind || measure.points.length) measure.clear(); else closeCard(); }
  if (event.key === "Enter" && measure.kind && event.target.tagName !== "BUTTON") measure.finish();
});

// ---- begin ----
document.title = `${info.title} - ${info.maps.every((map) => map.classes.length) ? "land cover" : "maps"}`;
byId("title").textContent = info.title;
const start = current();
// A continuous map is one of values first; its classes are there to be measured and sampled.
if (start.layers.some((layer) => layer.id.startsWith("value-"))) [state.rows.percent.on, state.rows.classes.on] = [true, false];
if (start.scene) [state.mode, state.compare] = ["swipe", `0/${picturesOf(start)[0]}`];
else if (info.maps.length > 1) [state.mode, state.compare] = ["swipe", `1/${info.maps[1].layers[0].id === "lc" && start.classes.length ? "lc" : layersOf(info.maps[1])[0]?.id ?? "lc"}`];
else state.compare = `0/${start.layers[1]?.id ?? start.layers[0].id}`;
if (narrow.matches) fold(true);
chooseMap(0);
right.setView(left.getCenter(), left.getZoom(), { animate: false });
document.body.dataset.ready = "yes";
