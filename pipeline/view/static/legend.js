// The legend: classes that can be switched off, and colour ramps.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
/** A measurement with digits enough to tell values of a range apart. */
export const valueOf = (value, range) => {
  const digits = Math.min(Math.max(2 - Math.floor(Math.log10(range || 1)), 0), 8);
  return new Intl.NumberFormat("en", { maximumFractionDigits: digits }).format(value);
};
/** Name with unit, where it has one. */
export const titled = (layer) => (layer.unit ? `${layer.label} (${layer.unit})` : layer.label);

export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  const { text, className, ...rest } = options;
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  for (const [name, value] of Object.entries(rest)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function swatch(color) {
  const element = make("span", { className: "swatch" });
  element.style.background = color;
  return element;
}

const hectares = (area) => `${(area < 100 ? fine : whole).format(area)} ha`;

function figure(item, total) {
  if (item.area_ha === null || !total) return "";
  return `${hectares(item.area_ha)} · ${fine.format((100 * item.area_ha) / total)} %`;
}

/** The classes of one map; `changed` is called when `hidden` (a set of codes) has. */
export function classLegend(map, hidden, { title, changed }) {
  const total = map.classes.reduce((sum, item) => sum + (item.area_ha ?? 0), 0);
  const choose = (codes) => {
    hidden.clear();
    codes.forEach((code) => hidden.add(code));
    changed();
  };
  const all = make("button", { type: "button", text: "all" });
  const none = make("button", { type: "button", text: "none" });
  all.addEventListener("click", () => choose([]));
  none.addEventListener("click", () => choose(map.classes.map((item) => item.code)));
  const block = make("div", { className: "block" },
    make("div", { className: "legend-head" }, make("h2", { text: title }), make("span", {}, all, none)));
  for (const item of map.classes) {
    const box = make("input", { type: "checkbox" });
    box.checked = !hidden.has(item.code);
    const row = make("label", { className: `class${box.checked ? "" : " off"}`, "data-code": item.code, title: item.name },
      box, swatch(item.color), make("span", { className: "name", text: item.name }),
      make("span", { className: "figure", text: figure(item, total) }));
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(item.code);
      else hidden.add(item.code);
      changed();
    });
    block.append(row);
  }
  return block;
}

export function rampLegend(layer) {
  const ramp = make("div", { className: "ramp" });
  ramp.style.background = `linear-gradient(to right, ${layer.colors.join(", ")})`;
  const range = layer.maximum - layer.minimum;
  const ticks = [0, 0.5, 1].map((part) => make("span", { text: valueOf(layer.minimum + part * range, range) }));
  return make("div", { className: "block" }, make("h2", { text: titled(layer) }), ramp,
    make("div", { className: "ticks" }, ...ticks));
}
