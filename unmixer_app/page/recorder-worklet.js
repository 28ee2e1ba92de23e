// Hands on what the microphone gives, a few blocks at a time.

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.kept = [];
  }

  process([channels]) {
    if (channels.length === 0) return true;
    this.kept.push(channels.map((channel) => channel.slice()));
    if (this.kept.length === 16) {
      const joined = this.kept[0].map((_, c) => {
        const all = new Float32Array(this.kept.reduce((n, block) => n + block[0].length, 0));
        let at = 0;
        for (const block of this.kept) {
          all.set(block[c] ?? block[0], at);
          at += block[0].length;
        }
        return all;
      });
      this.kept = [];
      this.port.postMessage(joined);
    }
    return true;
  }
}

registerProcessor("tap", Tap);
