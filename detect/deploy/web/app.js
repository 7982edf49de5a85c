// The page: images or camera in, boxes on the image and a table out.

import { Camera } from "./camera.js";
import { Controls, offerBackends } from "./controls.js";
import { backends, Detector } from "./detector.js";
import { draw } from "./draw.js";
import { drawnImage, fillTable, lossless, resultRows, save, sentence } from "./results.js";

const FRAMES = 30; // over which times are averaged
const element = (id) => document.getElementById(id);

const camera = new Camera();
const files = []; // {name, file, button}
let detector;
let controls;
let description;
let names;
let stage = null; // what is shown: {name, image, detections}; image is null while the worker has it
let times = []; // of the last frames: {ms, at}
let showing = 0; // raised whenever something else is shown

/** Load settings and network, then let the person begin. */
async function start() {
  say("Loading the detector …");
  const settings = await read("settings.json");
  description = await read(`${settings.model}.json`);
  names = description.classes.map((row) => row.name);
  const [height, width] = description.input.image_size;
  const classes = names.length === 1 ? `1 class (${names[0]})` : `${names.length} classes`;
  element("about").textContent = `${classes} · input ${width} × ${height} px · ${settings.runtime}`;
  controls = new Controls(settings, description, { threshold: again, classes: paint });
  detector = new Detector();
  const load = (backend) => loadNetwork(settings.model, backend);
  await load(offerBackends(await backends(), async (backend) => {
    await load(backend);
    await again();
  }));
}

async function read(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error(`${address}: the server answers ${reply.status}`);
  return reply.json();
}

async function loadNetwork(model, backend) {
  say(`Loading the network (${element("backend").selectedOptions[0].text}) …`);
  const address = new URL(model, location.href).href;
  try {
    await detector.load(address, description, backend);
    say("Ready: choose images, drop them here, or use the camera.");
  } catch (error) {
    if (backend === "wasm") throw error;
    element("backend").value = "wasm";
    await detector.load(address, description, "wasm");
    say(`WebGPU cannot run this network (${error.message}); WebAssembly runs it.`);
  }
  times = [];
}

/** A sentence for people, read aloud by screen readers. */
function say(text, { error = false } = {}) {
  element("status").textContent = text;
  element("status").classList.toggle("error", error);
}

function fail(error) {
  console.error(error);
  say(error.message ?? String(error), { error: true });
}

/** Find and show what is in an image; a camera's frame is not announced. */
async function show(name, image, mine, { announce = true } = {}) {
  if (mine === showing) stage = { name, image: null, detections: [] };
  const answer = await detector.detect(image, controls.thresholds);
  if (mine !== showing) return answer.image.close();
  stage = { name, image: answer.image, detections: answer.detections };
  times = [...times, { ms: answer.ms, at: performance.now() }].slice(-FRAMES);
  paint();
  if (announce) say(`${name}: ${sentence(wanted(stage.detections), names)}`);
}

function wanted(detections) {
  return detections.filter(({ label }) => controls.wants(label));
}

/** Draw what is on the stage, as wide as it is shown. */
function paint() {
  if (!stage?.image) return;
  const found = wanted(stage.detections);
  const { image, name } = stage;
  element("empty").hidden = true;
  element("canvas").hidden = false;
  element("stage").classList.add("full");
  const room = element("stage").clientWidth;
  const shown = Math.min(room, (window.innerHeight * 0.78 * image.width) / image.height);
  draw(element("canvas"), image, found, names, Math.round(shown * (window.devicePixelRatio || 1)));
  element("canvas").style.width = `${shown}px`;
  element("canvas").setAttribute("aria-label", `${name}: ${sentence(found, names)}`);
  fillTable(element("rows"), found, names);
  element("timing").textContent = timing();
  element("save-json").disabled = element("save-image").disabled = false;
}

/** Milliseconds per frame; of a camera the mean of the last frames, and frames per second. */
function timing() {
  const mean = (part) => times.reduce((sum, one) => sum + one.ms[part], 0) / times.length;
  const [total, resized, network, found] = ["total", "resized", "network", "found"].map((part) => mean(part).toFixed(1));
  const text = `${total} ms per frame: resize ${resized}, network ${network}, boxes ${found}`;
  if (!camera.on || times.length < 2) return text;
  const seconds = (times.at(-1).at - times[0].at) / 1000;
  return `${text} · ${((times.length - 1) / seconds).toFixed(1)} frames per second`;
}

let outdated = false; // the threshold or the network is another than when the stage was filled

/** Find again in the image on the stage; a camera's next frame comes by itself. */
async function again() {
  outdated = true;
  while (outdated && stage?.image && !camera.on) {
    outdated = false;
    times = [];
    await show(stage.name, stage.image, showing).catch(fail);
  }
}

/** What is on the stage, once the worker has given it back. */
async function settled() {
  while (!stage?.image) await new Promise(requestAnimationFrame);
  return stage;
}

async function open(entry) {
  stopCamera();
  const mine = ++showing;
  for (const { button } of files) button.removeAttribute("aria-current");
  entry.button.setAttribute("aria-current", "true");
  times = [];
  try {
    outdated = false;
    await show(entry.name, await decode(entry), mine);
    if (outdated) await again();
  } catch (error) {
    fail(error);
  }
}

/** The pixels as `detect` decodes them: upright, in the file's own colours. */
async function decode({ name, file }) {
  const how = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  try {
    return await createImageBitmap(file, how);
  } catch {
    throw new Error(`${name}: this browser cannot decode it.`);
  }
}

/** List images, and open the first of them. */
async function add(chosen) {
  const entries = [...chosen].map((file) => {
    const entry = { name: freeName(file.name), file, button: document.createElement("button") };
    const thumbnail = Object.assign(new Image(), { src: URL.createObjectURL(file), alt: "", loading: "lazy" });
    const name = Object.assign(document.createElement("span"), { textContent: entry.name });
    entry.button.type = "button";
    entry.button.append(thumbnail, name);
    entry.button.addEventListener("click", () => open(entry));
    files.push(entry);
    const item = document.createElement("li");
    item.append(entry.button);
    element("files").append(item);
    return entry;
  });
  if (entries.length) await open(entries[0]);
}

function freeName(name) {
  const taken = (other) => files.some((entry) => entry.name === other);
  let free = name;
  for (let i = 2; taken(free); i++) free = `${i}-${name}`;
  return free;
}

async function startCamera(lens = "") {
  const mine = ++showing;
  for (const { button } of files) button.removeAttribute("aria-current");
  try {
    await camera.start(lens);
    element("camera").textContent = "Stop the camera";
    element("photo").hidden = false;
    say("The camera is on.");
    times = [];
    for (let frame; mine === showing && (frame = await camera.frame()); ) {
      stage?.image?.close();
      await show("camera", frame, mine, { announce: false });
    }
  } catch (error) {
    if (mine === showing) stopCamera();
    fail(error);
  }
}

function stopCamera() {
  if (!camera.on) return;
  showing++;
  camera.stop();
  element("camera").textContent = "Use the camera";
  element("photo").hidden = true;
  say("The camera is off.");
}

/** Keep the camera's frame as an image of the list. */
async function takePhoto() {
  const blob = await lossless((await settled()).image);
  await add([new File([blob], "photo.png", { type: blob.type })]);
}

/** The detections of every image of the list, or of the camera's frame. */
async function saveDetections() {
  const rows = [];
  const skipped = [];
  if (camera.on || !files.length) {
    const { name, detections } = await settled();
    rows.push(...resultRows(name, wanted(detections), description.classes));
  } else {
    for (const [i, entry] of files.entries()) {
      say(`Detecting in image ${i + 1} of ${files.length} …`);
      try {
        const { image, detections } = await detector.detect(await decode(entry), controls.thresholds);
        image.close();
        rows.push(...resultRows(entry.name, wanted(detections), description.classes));
      } catch {
        skipped.push(entry.name);
      }
    }
  }
  save(new Blob([JSON.stringify(rows, null, 1)], { type: "application/json" }), "detections.json");
  const rest = skipped.length ? `; not read: ${skipped.join(", ")}` : "";
  say(`detections.json: ${rows.length} detections${rest}.`, { error: skipped.length > 0 });
}

async function saveImage() {
  const { name, image, detections } = await settled();
  save(await drawnImage(image, wanted(detections), names), `${name.replace(/\.[^.]*$/, "")}-detections.jpg`);
}

function listen() {
  element("choose").disabled = element("camera").disabled = false;
  element("choose").addEventListener("change", ({ target }) => {
    add(target.files);
    target.value = ""; // the same file may be chosen again
  });
  element("camera").addEventListener("click", () => (camera.on ? stopCamera() : startCamera()));
  element("lens").addEventListener("change", ({ target }) => startCamera(target.value));
  element("photo").addEventListener("click", takePhoto);
  element("save-json").addEventListener("click", saveDetections);
  element("save-image").addEventListener("click", saveImage);
  window.addEventListener("resize", paint);
  const over = (inside) => (event) => {
    event.preventDefault();
    element("stage").classList.toggle("over", inside);
  };
  document.addEventListener("dragover", over(true));
  document.addEventListener("dragleave", over(false));
  document.addEventListener("drop", (event) => {
    over(false)(event);
    add(event.dataTransfer.files);
  });
}

try {
  await start();
  listen();
} catch (error) {
  fail(error);
}
