// Waveforms and spectrograms on canvases, in the page's colours.

const SIZE = 2048, HOP = 256, ROWS = 112, LOW_HZ = 40, HIGH_HZ = 18000, FLOOR_DB = -75;

export function waveform(canvas, buffer, gain = 1) {
  const { context, width, height } = prepare(canvas);
  const colour = getComputedStyle(canvas).color;
  const left = buffer.getChannelData(0), right = buffer.getChannelData(buffer.numberOfChannels - 1);
  const scale = Math.min(gain / Math.max(peak(buffer) * gain, 1e-6), 1e6) * 0.46 * height;
  context.fillStyle = colour;
  for (let x = 0; x < width; x++) {
    const from = Math.floor((x * buffer.length) / width), to = Math.max(from + 1, Math.floor(((x + 1) * buffer.length) / width));
    let low = 0, high = 0;
    for (let i = from; i < to; i++) {
      const value = (left[i] + right[i]) / 2;
      if (value < low) low = value;
      else if (value > high) high = value;
    }
    context.fillRect(x, height / 2 - high * scale, 1, Math.max(1, (high - low) * scale));
  }
}

export function spectrogram(canvas, buffer) {
  const style = getComputedStyle(canvas);
  const ramp = ["--map-0", "--map-1", "--map-2", "--map-3"].map((name) => rgb(style.getPropertyValue(name)));
  const levels = analyse(buffer);
  const frames = levels.length / ROWS;
  const picture = new ImageData(frames, ROWS);
  for (let row = 0; row < ROWS; row++) {
    for (let x = 0; x < frames; x++) {
      const share = Math.min(Math.max(1 - levels[row * frames + x] / FLOOR_DB, 0), 1);
      const place = 4 * ((ROWS - 1 - row) * frames + x);
      picture.data.set(mix(ramp, share), place);
      picture.data[place + 3] = 255;
    }
  }
  const small = new OffscreenCanvas(frames, ROWS);
  small.getContext("2d").putImageData(picture, 0, 0);
  const { context, width, height } = prepare(canvas);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, width, height);
  axis(context, height, style);
}

export function clear(canvas) {
  prepare(canvas);
}

function axis(context, height, style) {
  const scale = devicePixelRatio;
  context.font = `${10 * scale}px system-ui, sans-serif`;
  for (const [hertz, label] of [[100, "100"], [1000, "1k"], [10000, "10k"]]) {
    const y = height * (1 - Math.log(hertz / LOW_HZ) / Math.log(HIGH_HZ / LOW_HZ));
    const wide = context.measureText(label).width;
    context.globalAlpha = 0.75;
    context.fillStyle = style.getPropertyValue("--map-0");
    context.fillRect(3 * scale, y - 7 * scale, wide + 4 * scale, 13 * scale);
    context.globalAlpha = 1;
    context.fillStyle = style.getPropertyValue("--map-ink");
    context.fillText(label, 5 * scale, y + 3 * scale);
  }
}

function prepare(canvas) {
  const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  const height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  canvas.width = width;
  canvas.height = height;
  return { context: canvas.getContext("2d"), width, height };
}

export function peak(buffer) {
  let most = 0;
  for (let c = 0; c < buffer.numberOfChannels; c++) for (const value of buffer.getChannelData(c)) most = Math.max(most, Math.abs(value));
  return most;
}

export function rms(buffer) {
  let sum = 0;
  for (let c = 0; c < buffer.numberOfChannels; c++) for (const value of buffer.getChannelData(c)) sum += value * value;
  return Math.sqrt(sum / (buffer.numberOfChannels * buffer.length));
}

// Levels in dB below the loudest, [ROWS × frames], rows from low to high frequency.
function analyse(buffer) {
  const left = buffer.getChannelData(0), right = buffer.getChannelData(buffer.numberOfChannels - 1);
  const frames = Math.max(1, Math.floor(buffer.length / HOP));
  const window = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  const edges = Array.from({ length: ROWS + 1 }, (_, i) => (LOW_HZ * (HIGH_HZ / LOW_HZ) ** (i / ROWS) * SIZE) / buffer.sampleRate);
  const power = new Float32Array(ROWS * frames);
  const real = new Float32Array(SIZE), imaginary = new Float32Array(SIZE), bins = new Float32Array(SIZE / 2);
  let most = 1e-12;
  for (let frame = 0; frame < frames; frame++) {
    const start = frame * HOP - SIZE / 2;
    for (let i = 0; i < SIZE; i++) {
      const at = start + i;
      real[i] = at >= 0 && at < buffer.length ? ((left[at] + right[at]) / 2) * window[i] : 0;
    }
    imaginary.fill(0);
    transform(real, imaginary);
    for (let bin = 0; bin < SIZE / 2; bin++) bins[bin] = real[bin] ** 2 + imaginary[bin] ** 2;
    for (let row = 0; row < ROWS; row++) {
      const largest = between(bins, edges[row], edges[row + 1]);
      power[row * frames + frame] = largest;
      most = Math.max(most, largest);
    }
  }
  return power.map((value) => 10 * Math.log10(Math.max(value / most, 1e-12)));
}

// The largest bin of a stretch; between two bins, in the lows, a value between theirs.
function between(bins, from, to) {
  const middle = (from + to) / 2, below = Math.min(Math.floor(middle), bins.length - 2), share = middle - below;
  let largest = bins[below] * (1 - share) + bins[below + 1] * share;
  for (let bin = Math.ceil(from); bin < Math.min(to, bins.length); bin++) largest = Math.max(largest, bins[bin]);
  return largest;
}

// Fast Fourier transform in place (Cooley and Tukey, radix 2).
const TWIDDLES = Array.from({ length: SIZE / 2 }, (_, i) => [Math.cos((2 * Math.PI * i) / SIZE), -Math.sin((2 * Math.PI * i) / SIZE)]);

function transform(real, imaginary) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let half = 1; half < SIZE; half *= 2) {
    const step = SIZE / (2 * half);
    for (let start = 0; start < SIZE; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const [c, s] = TWIDDLES[k * step], a = start + k, b = a + half;
        const x = real[b] * c - imaginary[b] * s, y = real[b] * s + imaginary[b] * c;
        real[b] = real[a] - x;
        imaginary[b] = imaginary[a] - y;
        real[a] += x;
        imaginary[a] += y;
      }
    }
  }
}

function mix(ramp, share) {
  const place = share * (ramp.length - 1), i = Math.min(Math.floor(place), ramp.length - 2), t = place - i;
  return ramp[i].map((value, c) => Math.round(value + (ramp[i + 1][c] - value) * t));
}

function rgb(hex) {
  const text = hex.trim().slice(1);
  return [0, 2, 4].map((i) => parseInt(text.slice(i, i + 2), 16));
}
