// From scores and boxes of all anchors to detections: detect/deploy/array_postprocess.py for the form "decoded".

/**
 * Top-k and NMS within each class.
 *
 * @param {Float32Array} scores (A, K) of labels 1..K.
 * @param {Float32Array} boxes (A, 4) xyxy px of the input.
 * @param {object} settings
 * @param {number[]} settings.thresholds (K,) detections score more.
 * @param {object} settings.postprocess of the model's description.
 * @param {[number, number]} settings.imageSize height and width of the input in px.
 * @param {[number, number]} settings.origSize height and width of the image in px.
 * @returns {{label: number, score: number, box: number[]}[]} by falling score; boxes xyxy px of the image.
 */
export function find(scores, boxes, { thresholds, postprocess, imageSize, origSize }) {
  const kept = [];
  for (const index of candidates(scores, thresholds, postprocess)) {
    if (kept.length === postprocess.max_detections) break;
    const row = Math.floor(index / thresholds.length);
    const one = { label: (index % thresholds.length) + 1, score: scores[index], box: boxes.subarray(4 * row, 4 * row + 4) };
    const rival = kept.some(
      (other) => other.label === one.label && overlap(other.box, one.box) > postprocess.nms_threshold,
    );
    if (!rival) kept.push(one);
  }
  const [scaleY, scaleX] = origSize.map((size, axis) => Math.fround(size / imageSize[axis]));
  const scales = [scaleX, scaleY, scaleX, scaleY];
  return kept.map((one) => ({ ...one, box: Array.from(one.box, (side, i) => Math.fround(side * scales[i])) }));
}

/** Places in `scores` that take part, by falling score; of equal ones the first anchor first. */
function candidates(scores, thresholds, { topk_candidates: inAll, topk_per_class: perClass }) {
  const least = Float32Array.from(thresholds);
  const counts = new Int32Array(least.length);
  const passing = [];
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] > least[i % least.length]) passing.push(i);
  }
  return passing
    .sort((one, other) => scores[other] - scores[one] || one - other)
    .filter((index) => counts[index % least.length]++ < (perClass ?? Infinity))
    .slice(0, inAll ?? Infinity);
}

/** Intersection over union of two xyxy boxes; NaN, which is above no threshold, where both have no area. */
function overlap(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  const shared = Math.max(width, 0) * Math.max(height, 0);
  return shared / (area(one) + area(other) - shared);
}

function area([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}
