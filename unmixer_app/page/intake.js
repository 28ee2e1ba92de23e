// How a sound gets in: dropped, chosen, pasted or recorded.

import { LONGEST_S, Recorder } from "./recorder.js";

const byId = (id) => document.getElementById(id);
const NOTES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

// Live's own names: MIDI note 60 is C3.
export const noteName = (note) => `${NOTES[note % 12]}${Math.floor(note / 12) - 2}`;

// send(file, name); fail(words).
export function intake(send, fail) {
  const drop = byId("drop"), file = byId("file");
  for (let note = 108; note >= 12; note--) byId("opt-note").append(new Option(`${noteName(note)} (${note})`, note));
  byId("choose").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length) send(file.files[0], file.files[0].name);
    file.value = "";
  });
  const over = (on) => drop.classList.toggle("over", on);
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
      event.preventDefault();
      over(true);
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false);
  });
  document.addEventListener("drop", (event) => {
    over(false);
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    send(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) send(event.clipboardData.files[0], event.clipboardData.files[0].name);
  });
  microphone(send, fail);
}

function microphone(send, fail) {
  const record = byId("record"), level = byId("level");
  let recorder = null, timer = null, begun = 0;
  const finish = async () => {
    clearInterval(timer);
    const done = recorder;
    recorder = null;
    record.textContent = "Record";
    record.setAttribute("aria-pressed", "false");
    level.hidden = true;
    const blob = await done.stop();
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
    send(blob, `recording ${time}.wav`);
  };
  record.addEventListener("click", async () => {
    if (recorder) return finish();
    const fresh = new Recorder((value) => {
      level.value = value;
    });
    record.disabled = true; // while the browser asks whether the microphone may be used
    try {
      await fresh.start();
    } catch (error) {
      return fail(error.message);
    } finally {
      record.disabled = false;
    }
    record.focus();
    recorder = fresh;
    begun = Date.now();
    level.hidden = false;
    record.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      const seconds = (Date.now() - begun) / 1000;
      record.textContent = `Stop (${seconds.toFixed(0)} s)`;
      if (seconds >= LONGEST_S && recorder) finish();
    }, 200);
    record.textContent = "Stop (0 s)";
  });
}

export function chosenOptions() {
  const options = {};
  const note = byId("opt-note").value, gate = byId("opt-gate").value, chain = byId("opt-chain").value.trim();
  if (note) options.note = Number(note);
  if (gate) options.gate_s = Number(gate);
  if (chain) options.chain = chain;
  if (byId("opt-fast").checked) options.fast = true;
  return options;
}
