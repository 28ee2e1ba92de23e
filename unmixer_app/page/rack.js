// The chain as a row of devices, and the controls of the one that is chosen.

import Sortable from "./vendor/sortable-1.15.7.esm.js";
import { knob } from "./knob.js";

const GROUPS = ["osc_1", "osc_2", "sub", "filter_1", "unison", "amp", "env_2", "lfo_1"];
const GROUP_NAMES = { osc_1: "Oscillator 1", osc_2: "Oscillator 2", sub: "Sub", filter_1: "Filter", unison: "Unison", amp: "Amp envelope", env_2: "Envelope 2", lfo_1: "LFO" };

export class Rack {
  // changed(settled): the patch is another one; said(words): for a screen reader.
  constructor(row, panel, { changed, said }) {
    this.row = row;
    this.panel = panel;
    this.changed = changed;
    this.said = said;
    this.chosen = "wavetable";
    this.all = false;
    this.stale = false;
    this.sortable = new Sortable(row, {
      animation: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 140, draggable: ".effect", handle: ".grip",
      filter: ".locked .grip", preventOnFilter: false, forceFallback: true, fallbackTolerance: 4, delayOnTouchOnly: true, delay: 60,
      onMove: ({ related }) => related.classList.contains("effect"),
      onEnd: () => {
        const keys = [...row.querySelectorAll(".effect")].map((item) => item.dataset.key);
        if (keys.join() === this.patch.effects.map((device) => device.key).join()) return;
        this.patch.order(keys);
        this.#moved();
      },
    });
  }

  show(patch, home) {
    this.patch = patch;
    this.home = home;
    if (!patch.device(this.chosen)) this.chosen = "wavetable";
    this.draw();
  }

  draw() {
    const focused = this.row.contains(document.activeElement) ? [document.activeElement.closest("li").dataset.key, document.activeElement.dataset.part] : null;
    this.row.replaceChildren(...this.patch.devices.map((device, i) => this.#card(device, i)));
    if (focused) this.row.querySelector(`[data-key="${focused[0]}"] [data-part="${focused[1]}"]`)?.focus();
    this.drawDevice();
  }

  #card(device, place) {
    const item = element("li", `card${place ? " effect" : " synth"}${device.on ? "" : " off"}${device.locked ? " locked" : ""}`);
    item.dataset.key = device.key;
    const grip = element("span", "grip");
    grip.setAttribute("aria-hidden", "true");
    grip.title = "Drag into another place";
    const name = button("name", device.name, () => this.#choose(device.key));
    name.setAttribute("aria-pressed", String(device.key === this.chosen));
    name.setAttribute("aria-label", `${device.name}, ${place ? `place ${place} of ${this.patch.effects.length}` : "the synthesizer"}${device.on ? "" : ", off"}${device.locked ? ", locked" : ""}`);
    if (place) name.setAttribute("aria-keyshortcuts", "Alt+ArrowLeft Alt+ArrowRight O L");
    const tools = element("span", "tools");
    if (place) {
      const power = button("power", "", () => this.#power(device));
      power.setAttribute("aria-pressed", String(device.on));
      power.setAttribute("aria-label", `${device.name} on`);
      power.title = device.on ? "Switch off (O)" : "Switch on (O)";
      tools.append(power);
    }
    const lock = button("lock", "", () => this.#lock(device));
    lock.setAttribute("aria-pressed", String(device.locked));
    lock.setAttribute("aria-label", `${device.name} locked`);
    lock.title = device.locked ? "Unlock (L)" : "Lock: it keeps its controls, also in another search (L)";
    tools.append(lock);
    if (place) item.append(grip);
    item.append(name, tools);
    item.addEventListener("keydown", (event) => this.#key(event, device, place));
    return item;
  }

  #key(event, device, place) {
    if (event.ctrlKey || event.metaKey) return; // the browser's: Ctrl+L is its address line
    const sideways = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.altKey && sideways) {
      if (place && device.locked) this.said(`${device.name} is locked.`);
      else if (place && this.patch.move(device.key, sideways)) this.#moved(device);
    } else if (event.altKey) return;
    else if (sideways) {
      const items = [...this.row.children], next = items[items.indexOf(event.currentTarget) + sideways];
      next?.querySelector(".name").focus();
    } else if (event.key.toLowerCase() === "o" && place) this.#power(device);
    else if (event.key.toLowerCase() === "l") this.#lock(device);
    else return;
    event.preventDefault();
  }

  #choose(key) {
    this.chosen = key;
    this.draw();
  }

  #power(device) {
    if (device.locked) return this.said(`${device.name} is locked.`);
    device.on = !device.on;
    this.said(`${device.name} is ${device.on ? "on" : "off"}.`);
    this.draw();
    this.changed(true);
  }

  #lock(device) {
    device.locked = !device.locked;
    this.said(`${device.name} is ${device.locked ? "locked" : "unlocked"}.`);
    this.draw();
    this.changed(true);
  }

  #moved(device) {
    this.draw();
    const names = this.patch.effects.map((one) => one.name);
    this.said(device ? `${device.name} is now ${names.indexOf(device.name) + 1} of ${names.length}.` : `The order is now ${names.join(", ")}.`);
    this.changed(true);
  }

  // Other controls can be heard than are shown; a knob that is being held is not taken out of the hand.
  refresh() {
    if (this.stale && !this.panel.querySelector(".held")) this.drawDevice();
  }

  drawDevice() {
    this.stale = false;
    const device = this.patch.device(this.chosen), spec = this.patch.specs[this.chosen];
    const focused = this.panel.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    const head = element("div", "device-head");
    const title = element("h3", "", device.name);
    const silent = Object.values(device.knobs).filter((entry) => entry.active === false).length;
    head.append(title);
    if (silent) {
      const more = button("more quiet", this.all ? "Only what is heard" : `All controls (${silent} more)`, () => {
        this.all = !this.all;
        this.drawDevice();
      });
      head.append(more);
    }
    if (Object.values(device.knobs).some((entry) => entry.intervals)) head.append(element("p", "legend", "where the model expects it: 50 %, thin 90 %"));
    const groups = new Map();
    const group = (key) => {
      const name = this.chosen === "wavetable" ? (GROUPS.find((start) => key.startsWith(start)) ?? "osc_1") : "";
      if (!groups.has(name)) groups.set(name, { choices: [], knobs: [] });
      return groups.get(name);
    };
    for (const choice of spec.choices) group(choice.key).choices.push(choice);
    for (const one of spec.knobs) group(one.key).knobs.push(one);
    const parts = (this.chosen === "wavetable" ? GROUPS : [""]).filter((name) => groups.has(name)).map((name) => this.#group(name, groups.get(name), device));
    const grid = element("div", this.chosen === "wavetable" ? "groups" : "groups single");
    grid.append(...parts.filter(Boolean));
    this.panel.replaceChildren(head, grid);
    this.panel.classList.toggle("locked", device.locked);
    this.panel.classList.toggle("off", !device.on);
    if (focused) this.panel.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  #group(name, { choices, knobs }, device) {
    const shown = (entry) => this.all || entry.active !== false;
    const choiceParts = choices.filter((choice) => shown(device.choices[choice.key])).map((choice) => this.#choice(choice, device, name));
    const knobParts = knobs.filter((one) => shown(device.knobs[one.key])).map((one) => this.#knob(one, device, name));
    if (!choiceParts.length && !knobParts.length) return null;
    const field = element("fieldset", "group");
    if (name) field.append(element("legend", "", GROUP_NAMES[name]));
    const selects = element("div", "choices"), dials = element("div", "dials");
    selects.append(...choiceParts);
    dials.append(...knobParts);
    field.append(selects, dials);
    return field;
  }

  #knob(spec, device, group) {
    const entry = device.knobs[spec.key], home = this.home.device(device.key)?.knobs[spec.key].unit ?? spec.default;
    return knob({ ...spec, short: shorter(spec.name, group) }, entry, {
      locked: device.locked, home,
      turned: (unit, settled) => {
        entry.unit = unit;
        this.changed(settled);
      },
    });
  }

  #choice(spec, device, group) {
    const entry = device.choices[spec.key], label = element("label", "choice");
    label.classList.toggle("silent", entry.active === false);
    const select = document.createElement("select");
    select.setAttribute("aria-label", `${device.name} ${pretty(spec)}`);
    select.disabled = device.locked;
    for (const item of spec.items) {
      const share = entry.probabilities?.[item];
      const option = new Option(share === undefined ? item : `${item} · ${Math.round(100 * share)} %`, item, false, item === entry.item);
      select.append(option);
    }
    select.addEventListener("change", () => {
      entry.item = select.value;
      this.changed(true);
    });
    label.append(element("span", "", shorter(pretty(spec), group)), select);
    return label;
  }
}

const pretty = (spec) => (spec.name.includes("_") ? spec.key.replaceAll("_", " ").replace(/^./, (c) => c.toUpperCase()) : spec.name);

function shorter(name, group) {
  const start = group.replace("_", " ");
  return group && name.toLowerCase().startsWith(`${start} `) ? name.slice(start.length + 1).replace(/^./, (c) => c.toUpperCase()) : name;
}

function button(kind, text, click) {
  const made = element("button", kind, text);
  made.type = "button";
  made.dataset.part = kind.split(" ")[0];
  made.addEventListener("click", click);
  return made;
}

function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}
