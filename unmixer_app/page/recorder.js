// The microphone as a WAV file: samples as they come, no codec, up to a minute.

export const LONGEST_S = 60;

export class Recorder {
  constructor(onlevel) {
    this.onlevel = onlevel;
    this.parts = [];
    this.samples = 0;
  }

  async start() {
    if (!navigator.mediaDevices) throw new Error("This browser gives the microphone only to https pages and to 127.0.0.1.");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: { ideal: 2 } },
      });
    } catch (error) {
      throw new Error(error.name === "NotFoundError" ? "There is no microphone." : "The microphone may not be used; allow it in the browser.");
    }
    try {
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule("/page/recorder-worklet.js");
      const node = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
      node.port.onmessage = ({ data }) => this.#take(data);
      this.context.createMediaStreamSource(this.stream).connect(node);
    } catch {
      await this.#release();
      throw new Error("The microphone cannot be heard in this browser.");
    }
  }

  async #release() {
    for (const track of this.stream.getTracks()) track.stop();
    await this.context?.close();
  }

  #take(channels) {
    if (this.samples > LONGEST_S * this.context.sampleRate) return;
    this.parts.push(channels);
    this.samples += channels[0].length;
    this.onlevel(channels[0].reduce((most, value) => Math.max(most, Math.abs(value)), 0));
  }

  async stop() {
    const rate = this.context.sampleRate;
    await this.#release();
    return new Blob([encode(this.parts, this.samples, rate)], { type: "audio/wav" });
  }
}

// 32-bit float WAV, two channels.
function encode(parts, samples, rate) {
  const bytes = new ArrayBuffer(44 + 8 * samples), view = new DataView(bytes);
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 8 * samples, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 3, true);
  view.setUint16(22, 2, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 8 * rate, true);
  view.setUint16(32, 8, true);
  view.setUint16(34, 32, true);
  text(36, "data");
  view.setUint32(40, 8 * samples, true);
  let at = 44;
  for (const channels of parts) {
    const left = channels[0], right = channels[1] ?? left;
    for (let i = 0; i < left.length; i++, at += 8) {
      view.setFloat32(at, left[i], true);
      view.setFloat32(at + 4, right[i], true);
    }
  }
  return bytes;
}
