// Tiles: bytes of a map that are coloured here, and pictures of the scene.

/** Colour of every byte as one 32-bit pixel (alpha, blue, green, red from the high byte down); 0 is transparent. */
const pixel = (red, green, blue) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

export function classTable(classes, hidden) {
  const table = new Uint32Array(256);
  for (const item of classes) if (!hidden.has(item.code)) table[item.code] = pixel(...channels(item.color));
  return table;
}

/** Outlines of objects in the colours of their classes, with white beside them. */
export function outlineTable(classes, hidden) {
  const table = classTable(classes, hidden);
  table[254] = pixel(255, 255, 255);
  return table;
}

/** Bytes up to `layer.top`, which stands for `layer.maximum`. */
export function rampTable(layer) {
  const stops = layer.colors.map(channels);
  const table = new Uint32Array(256);
  for (let value = 0; value < 256; value += 1) {
    const at = Math.min(value / layer.top, 1) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    table[value] = pixel(...stops[low].map((c, i) => Math.round(c + (stops[low + 1][i] - c) * (at - low))));
  }
  table[layer.nodata] = 0;
  return table;
}

async function load(url, signal) {
  const response = await fetch(url, { signal });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({ error: response.statusText }));
  throw new Error(said.error);
}

/** A layer of canvases: `options.table` colours bytes; without one a tile is a picture. */
export const TileLayer = L.GridLayer.extend({
  initialize(address, options) {
    this.address = address;
    L.GridLayer.prototype.initialize.call(this, options);
    this.on("tileunload", ({ tile }) => tile.stop.abort());
  },

  createTile({ x, y, z }, done) {
    const tile = L.DomUtil.create("canvas");
    tile.width = tile.height = 256;
    tile.stop = new AbortController();
    this._fill(tile, `${this.address}/${z}/${x}/${y}`).then(
      () => done(null, tile),
      (error) => {
        done(error, tile);
        if (error.name !== "AbortError") this.options.onProblem(error);
      },
    );
    return tile;
  },

  async _fill(tile, url) {
    const response = await load(url, tile.stop.signal);
    if (this.options.table) {
      tile.values = new Uint8Array(await response.arrayBuffer());
      this._paint(tile);
    } else {
      tile.getContext("2d").drawImage(await createImageBitmap(await response.blob()), 0, 0);
    }
  },

  _paint(tile) {
    const image = new ImageData(256, 256);
    const pixels = new Uint32Array(image.data.buffer);
    const { table } = this.options;
    tile.values.forEach((value, at) => { pixels[at] = table[value]; });
    tile.getContext("2d").putImageData(image, 0, 0);
  },

  /** Other colours for the same bytes; nothing is asked for again. */
  recolour(table) {
    this.options.table = table;
    for (const { el } of Object.values(this._tiles ?? {})) if (el.values) this._paint(el);
  },
});
