// The patch on the table: devices in the row's order, each on or off, locked or not, with its controls.

import { physical } from "./laws.js";

export class Patch {
  // document: patch.json; schema: of GET /schema.
  constructor(document, schema) {
    this.schema = schema;
    this.specs = Object.fromEntries(schema.devices.map((device) => [device.key, device]));
    this.note = document.note;
    this.gateS = document.gate_s;
    this.devices = document.devices.map((device) => ({
      key: device.key, name: device.device, on: true, locked: false,
      knobs: structuredClone(device.knobs), choices: structuredClone(device.choices),
    }));
    this.home = JSON.stringify(this.body());
  }

  get edited() {
    return JSON.stringify(this.body()) !== this.home;
  }

  get effects() {
    return this.devices.slice(1);
  }

  // What the API takes: effects that are on, in order.
  body() {
    const sounding = this.devices.filter((device) => device.on);
    const pick = (entries, key) => Object.fromEntries(Object.entries(entries).map(([name, entry]) => [name, { [key]: entry[key] }]));
    return {
      schema: this.schema.digest, note: this.note, gate_s: this.gateS,
      chain: sounding.slice(1).map((device) => device.name),
      devices: sounding.map((device) => ({ key: device.key, knobs: pick(device.knobs, "unit"), choices: pick(device.choices, "item") })),
    };
  }

  device(key) {
    return this.devices.find((device) => device.key === key);
  }

  // Effects in another order: a list of keys.
  order(keys) {
    this.devices = [this.devices[0], ...keys.map((key) => this.device(key))];
  }

  move(key, by) {
    const keys = this.effects.map((device) => device.key), from = keys.indexOf(key), to = from + by;
    if (from < 0 || to < 0 || to >= keys.length) return false;
    keys.splice(to, 0, ...keys.splice(from, 1));
    this.order(keys);
    return true;
  }

  // The service's description says which controls can be heard now. True when that has changed.
  heard(document) {
    let changed = false;
    for (const described of document.devices) {
      const device = this.device(described.key);
      for (const kind of device ? ["knobs", "choices"] : []) {
        for (const [name, { active }] of Object.entries(described[kind])) {
          changed ||= device[kind][name].active !== active;
          device[kind][name].active = active;
        }
      }
    }
    return changed;
  }

  // --lock words for what is locked: every control of it that can be heard.
  locks() {
    return this.devices.filter((device) => device.locked && device.on).flatMap((device) => [
      ...Object.entries(device.knobs).filter(([, entry]) => entry.active)
        .map(([name, entry]) => `${device.key}.${name}=${physical(this.#knob(device.key, name), entry.unit)}`),
      ...Object.entries(device.choices).filter(([, entry]) => entry.active).map(([name, entry]) => `${device.key}.${name}=${entry.item}`),
    ]);
  }

  #knob(key, name) {
    return this.specs[key].knobs.find((knob) => knob.key === name);
  }
}
