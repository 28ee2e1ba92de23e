// From a turned knob to its sound: one render at a time, and always the newest.

import * as api from "./api.js";
import { Patch } from "./patch.js";

const SETTLE_MS = 40;

export class Edits {
  constructor(player, { rendered, failed }) {
    this.player = player;
    this.rendered = rendered;
    this.failed = failed;
    this.forget();
  }

  forget() {
    clearTimeout(this.timer);
    this.asked = null;
    this.turn = (this.turn ?? 0) + 1;
  }

  open(document, schema) {
    return new Patch(document, schema);
  }

  home(document, schema) {
    return new Patch(document, schema);
  }

  changed(id, patch, settled, audition) {
    this.asked = { id, body: patch.body(), audition: audition && settled };
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#next(), settled ? 0 : SETTLE_MS);
  }

  async #next() {
    if (this.busy || !this.asked) return;
    const { id, body, audition } = this.asked, turn = this.turn;
    this.asked = null;
    this.busy = true;
    try {
      const [sound, described] = await Promise.all([api.render(body, id), api.describe(body)]);
      const buffer = await this.player.decode(sound.wav);
      if (turn === this.turn) {
        this.rendered({ buffer, percent: sound.percent, mssDb: sound.mssDb, described });
        if (audition && !this.player.playing) await this.player.play();
      }
    } catch (error) {
      if (turn === this.turn) this.failed(error);
    } finally {
      this.busy = false;
      if (this.asked) this.#next();
    }
  }
}
