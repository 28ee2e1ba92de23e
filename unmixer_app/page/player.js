// A and B at the same loudness: both always play together, and the key that changes sides only moves a fader.

import { peak, rms } from "./pictures.js";

const FADE_S = 0.008;

export class Player {
  constructor() {
    this.context = null;
    this.buffers = { a: null, b: null };
    this.side = "a";
    this.loop = false;
    this.playing = null;
    this.onchange = () => {};
  }

  async decode(wav) {
    return this.#context().decodeAudioData(wav);
  }

  #context() {
    this.context ??= new AudioContext({ sampleRate: 44100 });
    return this.context;
  }

  set(side, buffer) {
    this.buffers[side] = buffer;
    if (this.playing) this.#restart();
  }

  // B gets A's loudness; both come down together where that would clip.
  gains() {
    const { a, b } = this.buffers;
    const match = a && b ? rms(a) / Math.max(rms(b), 1e-9) : 1;
    const most = Math.max(a ? peak(a) : 0, b ? peak(b) * match : 0, 1e-9);
    const all = Math.min(1, 0.97 / most);
    return { a: all, b: all * match };
  }

  // Seconds into the sound, or null.
  get position() {
    if (!this.playing) return null;
    const seconds = this.context.currentTime - this.playing.begun, length = this.playing.length;
    return this.loop ? seconds % length : Math.min(seconds, length);
  }

  async play(from = 0) {
    const context = this.#context();
    await context.resume();
    this.stop(false);
    const sources = {}, faders = {}, gains = this.gains();
    for (const side of ["a", "b"]) {
      const buffer = this.buffers[side];
      if (!buffer) continue;
      const source = new AudioBufferSourceNode(context, { buffer, loop: this.loop });
      const fader = new GainNode(context, { gain: side === this.#heard() ? gains[side] : 0 });
      source.connect(fader).connect(context.destination);
      source.start(0, from);
      sources[side] = source;
      faders[side] = fader;
    }
    const first = sources.a ?? sources.b;
    if (!first) return;
    this.playing = { sources, faders, gains, begun: context.currentTime - from, length: first.buffer.duration };
    const mine = this.playing;
    first.onended = () => {
      if (this.playing === mine) this.stop();
    };
    this.onchange();
  }

  stop(tell = true) {
    if (!this.playing) return;
    const { sources } = this.playing;
    this.playing = null;
    for (const source of Object.values(sources)) source.stop();
    if (tell) this.onchange();
  }

  toggle() {
    if (this.playing) this.stop();
    else this.play();
  }

  hear(side) {
    this.side = side;
    if (this.playing) {
      const { faders, gains } = this.playing, now = this.context.currentTime;
      for (const [name, fader] of Object.entries(faders)) fader.gain.setTargetAtTime(name === this.#heard() ? gains[name] : 0, now, FADE_S / 3);
    }
    this.onchange();
  }

  setLoop(on) {
    const position = this.position;
    this.loop = on;
    if (this.playing) this.play(position);
  }

  #heard() {
    return this.buffers[this.side] ? this.side : "a";
  }

  #restart() {
    const { length } = this.playing;
    this.play(Math.min(this.position, length - 0.01));
  }
}
