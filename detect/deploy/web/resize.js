// From an image to what the network takes: the two resize rules of detect/data/images/resize.py, value for value.

const STRIP_PIXELS = 4_000_000; // copied at once: phones refuse larger canvases
const BITS = 15; // of a weight, sign aside: whole numbers are multiplied
const RGBA = 4;
const RGB = 3;

/**
 * Stretch a whole image onto the input.
 *
 * @param {ImageBitmap} image upright.
 * @param {[number, number]} imageSize height and width of the input in px.
 * @param {"antialias" | "torchvision"} rule
 * @returns {Uint8Array | Float32Array} (3, H, W) in 0..255; floats by the rule "torchvision".
 */
export function resize(image, [height, width], rule) {
  const [Values, table, mix] =
    rule === "antialias" ? [Uint8ClampedArray, triangles, mixWhole] : [Float32Array, neighbours, mixFloat];
  const narrow = new Values(image.height * width * RGB); // columns first, as torch does: it is rounded here
  const columns = table(image.width, width);
  let row = 0;
  for (const strip of strips(image)) {
    const lines = strip.length / (image.width * RGBA);
    mix(strip, narrow.subarray(row * width * RGB), columns, {
      lines, from: { line: image.width * RGBA, step: RGBA }, to: { line: width * RGB, step: RGB, channel: 1 },
    });
    row += lines;
  }
  const input = new Values(RGB * height * width);
  mix(narrow, input, table(image.height, height), {
    lines: width, from: { line: RGB, step: width * RGB }, to: { line: 1, step: width, channel: height * width },
  });
  return input instanceof Uint8ClampedArray ? new Uint8Array(input.buffer) : input;
}

/** Rows of an image as RGBA on white, some at a time. */
function* strips(image) {
  const rows = Math.min(image.height, Math.max(1, Math.floor(STRIP_PIXELS / image.width)));
  const context = new OffscreenCanvas(image.width, rows).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // shows through transparent pixels
  for (let top = 0; top < image.height; top += rows) {
    context.fillRect(0, 0, image.width, rows);
    context.drawImage(image, 0, -top);
    yield context.getImageData(0, 0, image.width, Math.min(rows, image.height - top)).data;
  }
}

/** For each of `wanted` places: where it begins to look, at how many values, and their weights. */
function triangles(given, wanted) {
  const scale = given / wanted;
  const reach = Math.max(scale, 1);
  const taps = 2 * Math.ceil(reach) + 1;
  const first = new Int32Array(wanted);
  const count = new Int32Array(wanted);
  const shares = new Float64Array(wanted * taps);
  let largest = 0;
  for (let i = 0; i < wanted; i++) {
    const centre = scale * (i + 0.5);
    first[i] = Math.max(Math.trunc(centre - reach + 0.5), 0);
    count[i] = Math.min(Math.trunc(centre + reach + 0.5), given) - first[i];
    const own = shares.subarray(i * taps, i * taps + count[i]);
    own.forEach((_, tap) => (own[tap] = Math.max(0, 1 - Math.abs((first[i] + tap - centre + 0.5) / reach))));
    const sum = own.reduce((total, share) => total + share, 0);
    own.forEach((share, tap) => (own[tap] = share / sum));
    largest = Math.max(largest, ...own);
  }
  let places = 0; // the most binary places with which the largest weight keeps its bits
  while (Math.trunc(0.5 + largest * 2 ** (places + 1)) < 2 ** BITS) places++;
  return { first, count, taps, weights: Int32Array.from(shares, (share) => 0.5 + share * 2 ** places), places };
}

/** Weighted means to the nearest whole number, along lines of three channels. */
function mixWhole(given, made, { first, count, taps, weights, places }, { lines, from, to }) {
  const half = 1 << (places - 1);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < first.length; i++) {
      let red = half;
      let green = half;
      let blue = half;
      let source = line * from.line + first[i] * from.step;
      for (let tap = i * taps; tap < i * taps + count[i]; tap++, source += from.step) {
        red += given[source] * weights[tap];
        green += given[source + 1] * weights[tap];
        blue += given[source + 2] * weights[tap];
      }
      const target = line * to.line + i * to.step;
      made[target] = red >> places;
      made[target + to.channel] = green >> places;
      made[target + 2 * to.channel] = blue >> places;
    }
  }
}

/** For each of `wanted` places: the two values beside it and the share of the second. */
function neighbours(given, wanted) {
  const low = new Int32Array(wanted);
  const part = new Float32Array(wanted);
  for (let i = 0; i < wanted; i++) {
    const place = Math.min(Math.max((i + 0.5) * (given / wanted) - 0.5, 0), given - 1);
    low[i] = Math.trunc(place);
    part[i] = place - low[i];
  }
  return { low, high: low.map((place) => Math.min(place + 1, given - 1)), part };
}

/** Means of two values in float32, along lines of three channels. */
function mixFloat(given, made, { low, high, part }, { lines, from, to }) {
  const round = Math.fround;
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < low.length; i++) {
      const one = line * from.line + low[i] * from.step;
      const other = line * from.line + high[i] * from.step;
      const rest = round(1 - part[i]);
      for (let channel = 0; channel < RGB; channel++) {
        const target = line * to.line + i * to.step + channel * to.channel;
        made[target] = round(given[one + channel] * rest) + round(given[other + channel] * part[i]);
      }
    }
  }
}
