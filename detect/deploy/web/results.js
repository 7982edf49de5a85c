// Detections as a table, as a sentence, and as the files that `detect predict` writes.

import { dot } from "./controls.js";
import { draw } from "./draw.js";

/** Fill the table. */
export function fillTable(body, detections, names) {
  body.replaceChildren(
    ...detections.map(({ label, score, box: [left, top, right, bottom] }) => {
      const row = document.createElement("tr");
      const cells = [names[label - 1], score.toFixed(3), ...[left, top, right - left, bottom - top].map((v) => v.toFixed(1))];
      row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      row.firstChild.prepend(dot(label));
      return row;
    }),
  );
}

/** "3 detections: 2 cat, 1 dog". */
export function sentence(detections, names) {
  const counts = new Map();
  for (const { label } of detections) counts.set(label, (counts.get(label) ?? 0) + 1);
  const each = [...counts].map(([label, count]) => `${count} ${names[label - 1]}`).join(", ");
  const number = `${detections.length} detection${detections.length === 1 ? "" : "s"}`;
  return each ? `${number}: ${each}` : number;
}

/** Rows of detections.json, in COCO's results format. */
export function resultRows(name, detections, classes) {
  const round = (value, digits) => Number(value.toFixed(digits));
  return detections.map(({ label, score, box: [left, top, right, bottom] }) => ({
    image_id: name,
    category_id: classes[label - 1].category_id,
    bbox: [left, top, right - left, bottom - top].map((value) => round(value, 2)),
    score: round(score, 5),
    file_name: name,
    category_name: classes[label - 1].name,
  }));
}

/** Hand `blob` to the person as a file. */
export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** An image with its boxes in its own size. */
export function drawnImage(image, detections, names) {
  const canvas = new OffscreenCanvas(1, 1);
  draw(canvas, image, detections, names, image.width);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

/** An image as a PNG: every pixel as it is. */
export function lossless(image) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d", { alpha: false, willReadFrequently: true }).drawImage(image, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
