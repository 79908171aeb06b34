// Lengths and areas: drawn on every map, computed by the server on the ellipsoid.

const number = (digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits });

export function lengthText(metres) {
  return metres < 10000 ? `${number(metres < 100 ? 1 : 0).format(metres)} m` : `${number(2).format(metres / 1000)} km`;
}

export function areaText(hectares) {
  const text = `${number(hectares < 100 ? 2 : 0).format(hectares)} ha`;
  return hectares < 1000 ? text : `${text} (${number(1).format(hectares / 100)} km²)`;
}

/** Draws and measures on `maps`; says what it found through `say(kind, result)`. */
export class Measure {
  constructor(maps, say) {
    this.maps = maps;
    this.say = say;
    this.kind = null;
    this.points = [];
    this.shapes = maps.map((map) => L.layerGroup().addTo(map));
    this.asked = 0;
    for (const map of maps) {
      map.on("mousemove", ({ latlng }) => this.kind && this.points.length && this._draw(latlng));
      map.on("dblclick", () => this.finish());
    }
  }

  start(kind) {
    this.clear();
    this.kind = kind;
    for (const map of this.maps) map.doubleClickZoom.disable();
  }

  /** A click on a map; false when nothing is being measured. */
  click(map, latlng) {
    if (!this.kind) return false;
    const last = this.points.at(-1);
    // A double click is two clicks in one place.
    const again = last && map.latLngToContainerPoint(last).distanceTo(map.latLngToContainerPoint(latlng)) < 4;
    if (!again) this.points.push(latlng);
    this._draw();
    return true;
  }

  finish() {
    if (!this.kind) return;
    this._draw();
    this.kind = null;
    // The double click that ended it must not zoom as well.
    setTimeout(() => this.maps.forEach((map) => map.doubleClickZoom.enable()), 0);
    this.say("done", null);
  }

  clear() {
    this.kind = null;
    this.points = [];
    this.asked += 1;
    this.shapes.forEach((group) => group.clearLayers());
    for (const map of this.maps) map.doubleClickZoom.enable();
    this.say("cleared", null);
  }

  _draw(pointer) {
    this.drawn = this.kind ?? this.drawn;
    const points = pointer ? [...this.points, pointer] : this.points;
    const closed = this.drawn === "area";
    this.shapes.forEach((group) => {
      group.clearLayers();
      const style = { interactive: false, fillOpacity: 0.15 };
      const shape = closed && points.length > 2 ? L.polygon : L.polyline;
      group.addLayer(shape(points, { ...style, color: "#fff", weight: 5, opacity: 0.9 }));
      group.addLayer(shape(points, { ...style, color: "#d5006d", weight: 2.5 }));
      for (const at of this.points) {
        group.addLayer(L.circleMarker(at, { radius: 4, color: "#fff", weight: 1.5, fillColor: "#d5006d", fillOpacity: 1, interactive: false }));
      }
    });
    if (points.length >= (closed ? 3 : 2)) this._ask(points, closed);
  }

  /** One question at a time; the last one counts. */
  async _ask(points, closed) {
    this.asked += 1;
    const mine = this.asked;
    if (this.busy) return;
    this.busy = true;
    const query = points.map(({ lng, lat }) => `${lng},${lat}`).join(";");
    try {
      const found = await (await fetch(`measure?points=${query}&closed=${closed ? 1 : 0}`)).json();
      if (mine === this.asked) this._show(found, points, closed);
    } finally {
      this.busy = false;
    }
    if (mine !== this.asked && this.points.length) this._draw();
  }

  _show(found, points, closed) {
    const text = closed ? areaText(found.area_ha) : lengthText(found.length_m);
    this.shapes.forEach((group) => {
      const label = document.createElement("span");
      label.textContent = text;
      group.addLayer(L.tooltip({ permanent: true, direction: "top", offset: [0, -6] }).setLatLng(points.at(-1)).setContent(label));
    });
    this.say(closed ? "area" : "line", found);
  }
}
