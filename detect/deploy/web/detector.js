// The page's side of worker.js: questions in, answers out, one after the other.

/** A detector that runs in a worker. */
export class Detector {
  #worker;
  #waiting = new Map();
  #last = Promise.resolve();
  #id = 0;

  constructor() {
    this.#worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data: { id, answer, error } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(answer);
      else reject(new Error(error));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      for (const { reject } of this.#waiting.values()) reject(new Error(event.message || "worker.js cannot be loaded"));
      this.#waiting.clear();
    };
  }

  /**
   * Load a model; the one before is dropped.
   *
   * @param {string} model address of the ONNX file.
   * @param {object} description content of its JSON.
   * @param {"wasm" | "webgpu"} backend
   */
  load(model, description, backend) {
    return this.#ask("load", { model, description, backend });
  }

  /**
   * Detections in an image.
   *
   * @param {ImageBitmap} image moves to the worker and comes back in the answer.
   * @param {number[]} thresholds of the classes; detections score more.
   * @returns {Promise<{image: ImageBitmap, detections: object[], ms: object}>}
   */
  detect(image, thresholds) {
    return this.#ask("detect", { image, thresholds }, [image]);
  }

  #ask(question, given, transfer = []) {
    const asked = this.#last.then(
      () =>
        new Promise((resolve, reject) => {
          const id = this.#id++;
          this.#waiting.set(id, { resolve, reject });
          this.#worker.postMessage({ id, question, given }, transfer);
        }),
    );
    this.#last = asked.catch(() => {});
    return asked;
  }
}

/** The backends of this browser, the one to take first at the front; WebGPU where there is a real adapter. */
export async function backends() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return ["wasm"];
  return adapter.info?.isFallbackAdapter ? ["wasm", "webgpu"] : ["webgpu", "wasm"];
}
