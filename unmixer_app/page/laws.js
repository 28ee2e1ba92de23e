// What a knob's position means: unit [0, 1] → raw (Live's scale) → physical, by the laws that GET /schema names.

export function raw(knob, unit) {
  const value = knob.raw_low + (knob.raw_high - knob.raw_low) * unit;
  return knob.integer ? halfEven(value) : value;
}

const halfEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

const LAWS = {
  Linear: (law, x) => law.offset + law.slope * x,
  Exponential: (law, x) => law.low * (law.high / law.low) ** x,
  Power: (law, x) => law.offset + law.scale * x ** law.exponent,
  Amplitude: (law, x) => 20 * Math.log10(x),
  MidiPitch: (law, x) => 440 * 2 ** ((x - 69) / 12),
  Ratio: (law, x) => 1 / (1 - x),
};

export function physical(knob, unit) {
  return LAWS[knob.law.kind](knob.law, raw(knob, unit));
}

// The position of a physical value, by bisection: every law rises with the position.
export function unitOf(knob, value) {
  const smooth = { ...knob, integer: false };
  let [low, high] = [0, 1];
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (physical(smooth, middle) < value) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

export function words(knob, unit) {
  const value = physical(knob, unit);
  const size = Math.abs(value);
  const digits = (x, n) => Number(x.toPrecision(n)).toString();
  switch (knob.unit) {
    case "Hz": return size >= 1000 ? `${digits(value / 1000, 3)} kHz` : `${digits(value, 3)} Hz`;
    case "s": return size < 1 ? `${digits(1000 * value, 3)} ms` : `${digits(value, 3)} s`;
    case "ms": return size >= 1000 ? `${digits(value / 1000, 3)} s` : `${digits(value, 3)} ms`;
    case "%": return `${Math.round(value)} %`;
    case "dB": return `${value.toFixed(1)} dB`;
    case "x": return digits(value, 2);
    case ":1": return `${digits(value, 2)}:1`;
    default: return `${digits(value, 3)}${knob.unit ? ` ${knob.unit}` : ""}`;
  }
}
