// Boxes, names and scores on an image, as detect/evaluation/draw.py draws them.

// Seven colours that people with any colour blindness tell apart (Okabe and Ito, 2008), and the text on each.
const PALETTE = [
  ["#e69f00", "#000"], ["#56b4e9", "#000"], ["#009e73", "#000"], ["#f0e442", "#000"],
  ["#0072b2", "#fff"], ["#d55e00", "#000"], ["#cc79a7", "#000"],
];

/** Colours of class `label` (1..K): of its box, and of text on it. */
export function colours(label) {
  return PALETTE[(label - 1) % PALETTE.length];
}

/**
 * Draw an image and its detections into a canvas, which becomes `width` px wide.
 *
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {ImageBitmap} image
 * @param {{label: number, score: number, box: number[]}[]} detections best first, px of the image.
 * @param {string[]} names of the classes.
 * @param {number} width of the canvas; its height follows.
 */
export function draw(canvas, image, detections, names, width) {
  const scale = width / image.width;
  canvas.width = width;
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const shorter = Math.min(canvas.width, canvas.height);
  const line = Math.max(2, Math.round(shorter / 180));
  const size = Math.min(Math.max(shorter / 26, 12), 96);
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const scaled = detections.map((one) => ({ ...one, box: one.box.map((side) => side * scale) }));
  for (const { label, box } of [...scaled].reverse()) drawBox(context, box, colours(label), line);
  const taken = []; // the most confident has the first choice of a place
  for (const { label, score, box } of scaled) {
    const text = `${names[label - 1]} ${score.toFixed(2)}`;
    const plate = freePlace(box, [context.measureText(text).width + size * 0.6, size * 1.3], taken, canvas);
    taken.push(plate);
    drawPlate(context, text, plate, colours(label));
  }
}

function drawBox(context, [left, top, right, bottom], [colour, contrast], line) {
  for (const [style, width] of [[contrast, 2 * line], [colour, line]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.strokeRect(left, top, right - left, bottom - top);
  }
}

function drawPlate(context, text, [left, top, right, bottom], [colour, contrast]) {
  context.fillStyle = colour;
  context.fillRect(left, top, right - left, bottom - top);
  context.fillStyle = contrast;
  context.fillText(text, left + (bottom - top) * 0.23, (top + bottom) / 2);
}

/** The first place at the box that hides no other plate, else the one that hides least of them. */
function freePlace([left, top, right, bottom], [width, height], taken, canvas) {
  const corners = [
    [left, top - height], [left, bottom], [left, top], [right - width, top - height],
    [right - width, bottom], [right - width, top], [left, bottom - height], [right - width, bottom - height],
  ];
  const places = corners.map(([x, y]) => {
    const inX = Math.max(0, Math.min(x, canvas.width - width));
    const inY = Math.max(0, Math.min(y, canvas.height - height));
    return [inX, inY, inX + width, inY + height];
  });
  const hidden = places.map((place) => taken.reduce((sum, other) => sum + sharedArea(place, other), 0));
  return places[hidden.indexOf(Math.min(...hidden))];
}

function sharedArea(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  return Math.max(0, width) * Math.max(0, height);
}
