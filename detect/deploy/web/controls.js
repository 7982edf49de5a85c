// What a person chooses: minimum scores, classes, the backend.

import { colours } from "./draw.js";

const TITLES = { wasm: "WebAssembly", webgpu: "WebGPU" };
const element = (id) => document.getElementById(id);

/** The settings beside the image. */
export class Controls {
  #names;
  #own;
  #one;
  #boxes;

  /**
   * @param {object} settings content of settings.json.
   * @param {object} description of the model.
   * @param {{threshold: () => void, classes: () => void}} changed called when a person changes something.
   */
  constructor(settings, description, changed) {
    this.#names = description.classes.map((row) => row.name);
    this.#own = description.postprocess.class_thresholds ?? null;
    const first = settings.score_threshold;
    this.#one = typeof first === "number" ? first : settings.default_threshold;
    element("threshold").value = this.#one;
    element("kinds").hidden = this.#own === null;
    element("kinds").querySelector(`[value=${Array.isArray(first) ? "own" : "one"}]`).checked = true;
    element("threshold").addEventListener("input", (event) => {
      this.#one = Number(event.target.value);
      element("kinds").querySelector("[value=one]").checked = true;
      this.#show();
      changed.threshold();
    });
    element("kinds").addEventListener("change", () => {
      this.#show();
      changed.threshold();
    });
    this.#boxes = this.#names.map((name, i) => classBox(name, i + 1, this.#own?.[i]));
    element("classes").append(...this.#boxes.map((box) => box.parentElement));
    element("classes").addEventListener("change", changed.classes);
    for (const [id, checked] of [["all", true], ["none", false]]) {
      element(id).addEventListener("click", () => {
        for (const box of this.#boxes) box.checked = checked;
        changed.classes();
      });
    }
    this.#show();
  }

  /** What a detection of each class must exceed. */
  get thresholds() {
    return this.#ownChosen ? this.#own : this.#names.map(() => this.#one);
  }

  /** Whether detections of class `label` (1..K) are wanted. */
  wants(label) {
    return this.#boxes[label - 1].checked;
  }

  get #ownChosen() {
    return this.#own !== null && element("kinds").querySelector(":checked").value === "own";
  }

  #show() {
    element("chosen").value = this.#ownChosen ? "–" : this.#one.toFixed(2);
  }
}

function classBox(name, label, least) {
  const row = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
  const text = Object.assign(document.createElement("span"), { className: "name", textContent: name });
  row.append(box, dot(label), text);
  if (least !== undefined) {
    const score = Object.assign(document.createElement("span"), { className: "least" });
    score.textContent = `> ${least.toFixed(2)}`;
    row.append(score);
  }
  return box;
}

/** A spot in the colour of class `label`. */
export function dot(label) {
  const spot = Object.assign(document.createElement("span"), { className: "dot" });
  spot.style.background = colours(label)[0];
  return spot;
}

/** Fill the list of backends; `?backend=wasm` in the address chooses one. Returns what is chosen. */
export function offerBackends(available, changed) {
  const list = element("backend");
  for (const [value, title] of Object.entries(TITLES)) {
    const there = available.includes(value);
    const option = new Option(there ? title : `${title} (none here)`, value);
    option.disabled = !there;
    list.add(option);
  }
  const asked = new URLSearchParams(location.search).get("backend");
  list.value = available.includes(asked) ? asked : available[0];
  list.addEventListener("change", () => changed(list.value));
  return list.value;
}
