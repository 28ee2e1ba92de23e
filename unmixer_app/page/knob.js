// A knob: drag up and down, by touch sideways (a finger up or down and the wheel scroll the page), arrow keys; the arcs behind
// it are the model's intervals.

import { physical, unitOf, words } from "./laws.js";

const SVG = "http://www.w3.org/2000/svg";
const START = -135, SWEEP = 270, RADIUS = 22;
const STEP = 0.02, FINE = 0.004, COARSE = 0.1, DRAG_PX = 180;

// entry: {unit, active, intervals}; spec: of GET /schema; turned(unit, settled).
export function knob(spec, entry, { locked, home, turned }) {
  const root = document.createElement("div");
  root.className = "knob";
  root.classList.toggle("silent", entry.active === false);
  const dial = document.createElement("div");
  dial.className = "dial";
  dial.tabIndex = 0;
  dial.setAttribute("role", "slider");
  dial.setAttribute("aria-label", spec.name);
  dial.setAttribute("aria-valuemin", physical(spec, 0));
  dial.setAttribute("aria-valuemax", physical(spec, 1));
  dial.setAttribute("aria-disabled", String(locked));
  const svg = make("svg", { viewBox: "-30 -30 60 56", "aria-hidden": "true" });
  svg.append(arc("track", 0, 1));
  const origin = spec.bipolar || (physical(spec, 0) < 0 && physical(spec, 1) > 0 && spec.unit !== "dB") ? unitOf(spec, 0) : 0;
  for (const level of ["90", "50"]) {
    const edges = entry.intervals?.[level];
    if (edges) svg.append(arc(`interval i${level}`, unitOf(spec, edges[0]), unitOf(spec, edges[1]), RADIUS + 5));
  }
  const value = arc("value", 0, 0), needle = make("line", { class: "needle", y1: -9, y2: -19 });
  svg.append(value, needle);
  const label = document.createElement("span"), text = document.createElement("output");
  label.className = "knob-name";
  label.textContent = spec.short ?? spec.name;
  dial.append(svg);
  root.append(dial, label, text);
  let unit = entry.unit;

  function show() {
    const [low, high] = [Math.min(origin, unit), Math.max(origin, unit)];
    value.setAttribute("d", path(low, high));
    needle.setAttribute("transform", `rotate(${START + SWEEP * unit})`);
    text.textContent = words(spec, unit);
    dial.setAttribute("aria-valuenow", physical(spec, unit));
    dial.setAttribute("aria-valuetext", words(spec, unit));
  }

  function turn(to, settled) {
    if (locked) return;
    unit = Math.min(Math.max(to, 0), 1);
    show();
    turned(unit, settled);
  }

  dial.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? FINE : spec.integer ? 1 / (spec.raw_high - spec.raw_low) : STEP;
    const moves = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step, PageUp: COARSE, PageDown: -COARSE };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in moves) turn(unit + moves[event.key], true);
    else if (event.key === "Home") turn(0, true);
    else if (event.key === "End") turn(1, true);
    else if (event.key === "Backspace" || event.key === "Delete") turn(home, true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  dial.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || locked) return;
    dial.setPointerCapture(event.pointerId);
    dial.focus();
    dial.classList.add("held");
    const along = (at) => (event.pointerType === "touch" ? at.clientX : -at.clientY);
    const before = unit;
    let last = along(event);
    const move = (moved) => {
      const pixels = along(moved) - last;
      last = along(moved);
      turn(unit + (pixels / DRAG_PX) * (moved.shiftKey ? 0.2 : 1), false);
    };
    const end = () => {
      dial.removeEventListener("pointermove", move);
      dial.classList.remove("held");
      if (unit !== before) turn(unit, true);
    };
    dial.addEventListener("pointermove", move);
    dial.addEventListener("lostpointercapture", end, { once: true });
    event.preventDefault();
  });
  dial.addEventListener("dblclick", () => turn(home, true));
  dial.title = `${spec.name}${intervalWords(spec, entry)}`;
  if (intervalWords(spec, entry)) dial.setAttribute("aria-description", intervalWords(spec, entry).slice(2));
  show();
  return root;
}

function intervalWords(spec, entry) {
  const edges = entry.intervals?.["90"];
  return edges ? `: 90 % between ${words(spec, unitOf(spec, edges[0]))} and ${words(spec, unitOf(spec, edges[1]))}` : "";
}

function arc(name, from, to, radius = RADIUS) {
  return make("path", { class: name, d: path(from, to, radius) });
}

function path(from, to, radius = RADIUS) {
  const [a, b] = [from, Math.max(to, from + 0.004)].map((share) => ((START + SWEEP * share - 90) * Math.PI) / 180);
  const point = (angle) => `${(radius * Math.cos(angle)).toFixed(2)} ${(radius * Math.sin(angle)).toFixed(2)}`;
  return `M ${point(a)} A ${radius} ${radius} 0 ${b - a > Math.PI ? 1 : 0} 1 ${point(b)}`;
}

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
