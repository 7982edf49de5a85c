// Frames of a camera, as images.

const element = (id) => document.getElementById(id);

/** The camera of this device, while it is on. */
export class Camera {
  #stream = null;

  /** Whether it is on. */
  get on() {
    return this.#stream !== null;
  }

  /**
   * Ask for a camera and start it.
   *
   * @param {string} lens id of a camera; empty: the one at the back, where there are two.
   * @throws {Error} with a sentence for people.
   */
  async start(lens) {
    if (!navigator.mediaDevices) throw new Error("The camera needs https, or the address localhost.");
    const video = lens ? { deviceId: { exact: lens } } : { facingMode: "environment" };
    this.stop();
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      throw new Error(`The camera cannot be used: ${error.message || error.name}.`);
    }
    element("video").srcObject = this.#stream;
    await element("video").play();
    await offerLenses(this.#stream.getVideoTracks()[0].getSettings().deviceId);
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    element("video").srcObject = null;
    element("lenses").hidden = true;
  }

  /** The next frame; null once the camera is off. */
  async frame() {
    await new Promise(requestAnimationFrame);
    return this.on ? createImageBitmap(element("video")) : null;
  }
}

/** Fill the list of cameras; it shows where there are several. */
async function offerLenses(current) {
  const lenses = (await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === "videoinput");
  element("lens").replaceChildren(...lenses.map((one, i) => new Option(one.label || `Camera ${i + 1}`, one.deviceId)));
  element("lens").value = current;
  element("lenses").hidden = lenses.length < 2;
}
