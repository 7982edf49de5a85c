// The network and all arithmetic, on a thread of their own: the page stays responsive.

import { find } from "./find.js";
import { resize } from "./resize.js";

const RUNTIMES = { wasm: "./onnxruntime/ort.wasm.js", webgpu: "./onnxruntime/ort.webgpu.js" };
const questions = { load, detect };

let ort;
let session;
let description;

self.onmessage = async ({ data: { id, question, given } }) => {
  try {
    const answer = await questions[question](given);
    self.postMessage({ id, answer }, answer.image ? [answer.image] : []);
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};

/** Load the network and run it once: the first run takes longer. */
async function load({ model, description: told, backend }) {
  await session?.release();
  session = undefined;
  ort = await import(RUNTIMES[backend]);
  const reply = await fetch(model);
  if (!reply.ok) throw new Error(`${model}: the server answers ${reply.status}`);
  const bytes = new Uint8Array(await reply.arrayBuffer());
  session = await ort.InferenceSession.create(bytes, { executionProviders: [backend] });
  description = told;
  const size = 3 * description.input.image_size[0] * description.input.image_size[1];
  const blank = description.input.resize_rule === "antialias" ? new Uint8Array(size) : new Float32Array(size);
  await run(blank);
  return {};
}

/** Detections in an image, which is given back, and the milliseconds of each step. */
async function detect({ image, thresholds }) {
  const { image_size: imageSize, resize_rule: rule } = description.input;
  const times = [performance.now()];
  const pixels = resize(image, imageSize, rule);
  times.push(performance.now());
  const { scores, boxes } = await run(pixels);
  times.push(performance.now());
  const origSize = [image.height, image.width];
  const { postprocess } = description;
  const detections = find(scores.data, boxes.data, { thresholds, postprocess, imageSize, origSize });
  times.push(performance.now());
  const [resized, network, found] = times.slice(1).map((time, i) => time - times[i]);
  return { image, detections, ms: { resized, network, found, total: times[3] - times[0] } };
}

function run(pixels) {
  const type = pixels instanceof Uint8Array ? "uint8" : "float32";
  return session.run({ images: new ort.Tensor(type, pixels, [1, 3, ...description.input.image_size]) });
}
