// What lies under a click: class, confidence, probabilities, and the scene's values as a spectrum.

import { make, swatch, titled, valueOf } from "./legend.js";

const SVG = "http://www.w3.org/2000/svg";

export const degrees = ({ lat, lng }) => {
  const east = ((((lng + 180) % 360) + 360) % 360) - 180;
  return `${Math.abs(lat).toFixed(5)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(east).toFixed(5)}° ${east < 0 ? "W" : "E"}`;
};

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function bars(rows) {
  const block = make("div", { className: "bars" });
  for (const { name, value, minimum = 0, maximum, unit, color } of rows) {
    const fill = make("i");
    fill.style.width = `${Math.min(Math.max((100 * (value - minimum)) / (maximum - minimum), 0), 100)}%`;
    if (color) fill.style.background = color;
    block.append(make("span", { className: "name", text: name, title: name }), make("span", { className: "bar" }, fill),
      make("span", { className: "figure", text: `${valueOf(value, maximum - minimum)} ${unit}` }));
  }
  return block;
}

const valueText = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 4));

/** Reflectance against wavelength; nothing where fewer than three bands have both. */
function spectrum(bands) {
  const unit = bands.find((band) => band.um !== null && band.um < 3)?.unit;
  const known = bands.filter((band) => band.um !== null && band.um < 3 && band.unit === unit).sort((a, b) => a.um - b.um);
  if (known.length < 3) return null;
  const [left, right, top, bottom] = [34, 284, 8, 92];
  const highest = Math.max(...known.map((band) => band.value), 1e-9) * 1.05;
  const lowest = Math.min(...known.map((band) => band.value), 0);
  const x = (um) => left + ((um - 0.4) / (2.3 - 0.4)) * (right - left);
  const y = (value) => bottom - ((value - lowest) / (highest - lowest)) * (bottom - top);
  const chart = shape("svg", { viewBox: "0 0 290 112", class: "spectrum", role: "img", "aria-label": `Spectrum: ${unit} against wavelength` });
  for (const value of [lowest, (lowest + highest) / 2, highest]) {
    chart.append(shape("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: "axis" }),
      shape("text", { x: left - 4, y: y(value) + 3, "text-anchor": "end" }, highest >= 10 ? value.toFixed(0) : value.toFixed(2)));
  }
  for (const um of [0.5, 1, 1.5, 2]) chart.append(shape("text", { x: x(um), y: 104, "text-anchor": "middle" }, `${um} µm`));
  chart.append(shape("polyline", { class: "line", points: known.map((band) => `${x(band.um)},${y(band.value)}`).join(" ") }));
  for (const band of known) {
    const dot = shape("circle", { class: "dot", cx: x(band.um), cy: y(band.value), r: 2.6 });
    dot.append(shape("title", {}, `${band.name} (${band.um} µm): ${valueText(band.value)}`));
    chart.append(dot);
  }
  return chart;
}

function sceneBlock(scene) {
  const block = make("div", { className: "one" });
  const units = [...new Set(scene.bands.map((band) => band.unit).filter(Boolean))];
  const what = { reflectance: "reflectance", DN: "stored values, no scaling known" }[units[0]] ?? units[0] ?? "values";
  block.append(make("h3", { text: scene.valid && units.length < 2 ? `Scene: ${what}` : "Scene" }));
  if (!scene.valid) {
    block.append(make("p", { className: "soft", text: "No observation here: outside, masked, or nodata." }));
    return block;
  }
  const chart = spectrum(scene.bands);
  if (chart) block.append(chart);
  const table = make("div", { className: "bands" });
  for (const band of scene.bands) {
    const unit = units.length > 1 && band.unit !== "reflectance" ? ` ${band.unit}` : "";
    table.append(make("div", { title: band.name }, make("span", { className: "name", text: band.name }),
      make("span", { className: "figure", text: valueText(band.value) + unit })));
  }
  block.append(table);
  return block;
}

function mapBlock(found, info, title) {
  const block = make("div", { className: "one" }, make("h3", { text: title }));
  if (!found.inside) {
    block.append(make("p", { className: "soft", text: "Outside this map." }));
    return block;
  }
  const item = found.class;
  if (item) {
    block.append(make("p", { className: "found", "data-code": item.code }, swatch(item.color), make("span", { text: item.name })));
  } else if (info.classes.length || found.values.every((layer) => layer.value === null)) {
    block.append(make("p", { className: "soft", text: info.classes.length ? "No class here (nodata)." : "No value here (nodata)." }));
  }
  if (found.object) {
    const { id, area_m2: area, confidence } = found.object;
    const sure = confidence === null ? "" : `, confidence ${valueOf(confidence, 100)} %`;
    block.append(make("p", { text: `${found.object.class} no. ${id}: ${valueOf(area, 100)} m²${sure}` }));
  }
  const limits = (id) => info.layers.find((layer) => layer.id === id);
  const seen = found.values.filter((layer) => layer.value !== null);
  const plain = seen.filter((layer) => !layer.id.startsWith("probability-"));
  block.append(bars(plain.map((layer) => ({ name: layer.label, value: layer.value, unit: layer.unit,
    minimum: limits(layer.id).minimum, maximum: limits(layer.id).maximum }))));
  const chances = seen.filter((layer) => layer.id.startsWith("probability-")).sort((a, b) => b.value - a.value);
  if (chances.length) {
    const byCode = new Map(info.classes.map((entry) => [`probability-${entry.code}`, entry]));
    block.append(make("p", { className: "soft", text: "Probabilities" }),
      bars(chances.map((layer) => ({ ...byCode.get(layer.id), value: layer.value, maximum: 100, unit: layer.unit }))));
  }
  block.append(make("p", { className: "soft", text: `row ${found.row}, column ${found.col}` }));
  return block;
}

/** The card of a click: `found` is one answer per map, `infos` what is known of these maps. */
export function fillCard(card, latlng, found, infos, close) {
  const button = make("button", { type: "button", className: "close", "aria-label": "Close", text: "×" });
  button.addEventListener("click", close);
  const first = found.find((item) => item.x !== null);
  const own = first ? `${first.crs}: ${first.x.toFixed(first.crs === "EPSG:4326" ? 6 : 1)}, ${first.y.toFixed(first.crs === "EPSG:4326" ? 6 : 1)}` : "";
  card.replaceChildren(button, make("p", { className: "place", text: degrees(latlng) }), make("p", { className: "soft", text: own }),
    ...found.map((item, i) => mapBlock(item, infos[i], found.length > 1 ? item.name : titled({ ...infos[i].layers[0], unit: "" }))));
  const scenes = new Map(found.filter((item) => item.scene).map((item) => [item.scene.name, item.scene]));
  card.append(...[...scenes.values()].map(sceneBlock));
  card.hidden = false;
  card.scrollTop = 0;
}
