// The page: what is shown and what a click does. Sounds, pictures, knobs and the chain have modules of their own.

import * as api from "./api.js";
import { Edits } from "./edits.js";
import { chosenOptions, intake, noteName } from "./intake.js";
import { clear, spectrogram, waveform } from "./pictures.js";
import { Player } from "./player.js";
import { Rack } from "./rack.js";

const byId = (id) => document.getElementById(id);
const STEPS = {
  "": "Starting", propose: "Proposing patches", proposal: "Rendering proposals", refine: "Refining through the proxy",
  refined: "Rendering refinements", corrected: "Refining by what the host said", changed: "Trying changes",
  polished: "Polishing on the host", write: "Writing the answer",
};
const player = new Player();
// `played`: the document on the page, the answer or the candidate in use; `playedName`: how the header calls it.
const shown = { job: null, answer: null, played: null, playedName: "", bestDb: null, following: null, uploadBytes: 0 };
let schema = null;

const edits = new Edits(player, { rendered, failed: (error) => notice(error.message) });
const rack = new Rack(byId("chain"), byId("device"), {
  changed: (settled) => {
    showEdited();
    edits.changed(shown.job.id, rack.patch, settled, byId("audition").checked);
  },
  said: (words) => {
    byId("chain-said").textContent = words;
  },
});

// --- what went wrong, and whether the service is ready ----------------------------------------------------------------

function notice(words) {
  byId("notice").textContent = words;
  byId("notice").hidden = !words;
}

async function attempt(work) {
  notice("");
  try {
    return await work();
  } catch (error) {
    if (error.status === 401) byId("token-form").hidden = false;
    notice(error.message);
    return undefined;
  }
}

async function watchState() {
  for (;;) {
    let found;
    try {
      found = await api.ready();
      if (!schema) start();
      shown.uploadBytes = found.upload_bytes ?? shown.uploadBytes;
      byId("state").textContent = found.ready ? (found.queued ? `Ready, ${found.queued} waiting` : "Ready") : api.capital(found.problems.join(" "));
    } catch (error) {
      found = { ready: false };
      byId("state").textContent = error.message;
    }
    byId("state").dataset.ready = String(found.ready);
    await new Promise((resolve) => setTimeout(resolve, found.ready ? 10_000 : 2_000));
  }
}

// --- jobs -------------------------------------------------------------------------------------------------------------

async function listJobs() {
  const jobs = await api.jobs();
  byId("jobs").replaceChildren(...jobs.slice(0, 12).map((job) => {
    const link = document.createElement("a");
    link.href = `#job=${job.id}`;
    link.dataset.state = job.state;
    link.textContent = job.name;
    const note = document.createElement("small");
    note.textContent = job.state === "done" ? `${Math.round(job.best?.similarity_percent ?? 0)} %` : job.state;
    link.append(note);
    if (job.id === shown.job?.id) link.setAttribute("aria-current", "true");
    return link;
  }));
}

async function send(file, name) {
  const most = shown.uploadBytes;
  if (most && file.size > most) return notice(`${name} has ${Math.ceil(file.size / 2 ** 20)} MiB; at most ${Math.floor(most / 2 ** 20)} are accepted.`);
  const job = await attempt(() => api.unmix(file, name, chosenOptions()));
  if (job) location.hash = `job=${job.id}`;
}

async function open(id) {
  shown.following?.abort();
  const { signal } = (shown.following = new AbortController()); // aborted: another job was opened meanwhile
  player.stop();
  edits.forget();
  Object.assign(shown, { job: null, answer: null, played: null, playedName: "", bestDb: null });
  byId("answer").hidden = true;
  const job = await attempt(() => api.job(id));
  if (signal.aborted) return;
  byId("work").hidden = !job;
  document.body.classList.toggle("working", Boolean(job));
  if (!job) return;
  shown.job = job;
  showJob(job);
  blank();
  const recording = await attempt(async () => player.decode(await api.get(`/jobs/${id}/input.wav`)));
  if (signal.aborted) return;
  if (recording) {
    player.set("b", null);
    player.set("a", recording);
    draw("a");
  }
  hear("a");
  await attempt(() => api.follow(id, (now) => followed(now), signal));
}

function followed(job) {
  const before = shown.job?.state;
  shown.job = job;
  showJob(job);
  if (["done", "failed", "cancelled"].includes(job.state)) {
    listJobs().catch(() => {});
    if (job.state === "failed") notice(`The search failed: ${job.message}`);
    if (job.state === "cancelled") notice("The search was cancelled.");
    if (job.state === "done") showAnswer(job.id);
  }
  else if (before !== job.state) listJobs().catch(() => {});
  if (job.state === "running" && job.best && job.best.mss_db !== shown.bestDb) showBest(job);
}

// The best so far can be heard and seen while the search goes on.
async function showBest(job) {
  shown.bestDb = job.best.mss_db;
  const wav = await api.get(`/jobs/${job.id}/rerender.wav`).catch(() => null);
  const buffer = wav && (await player.decode(wav));
  if (!buffer || shown.answer || shown.job?.id !== job.id) return;
  player.set("b", buffer);
  draw("b");
}

function showJob(job) {
  byId("job-name").textContent = job.name;
  byId("job-note").textContent = `${noteName(job.note)}, held ${job.gate_s.toFixed(2)} s`;
  const busy = ["queued", "running"].includes(job.state);
  byId("progress").hidden = !busy;
  byId("stop-keep").disabled = !job.best;
  if (!busy) return;
  const waiting = job.state === "queued";
  byId("progress-step").textContent = waiting ? (job.position ? `Waiting: ${job.position} before it` : "Next in line") : STEPS[job.step] ?? job.step;
  byId("progress-best").textContent = job.best ? `best so far ${Math.round(job.best.similarity_percent)} %: ${job.best.chain.join(" → ") || "no effects"}` : "";
  const bar = byId("progress-bar");
  if (!waiting && job.budget_s && job.seconds) bar.value = Math.min(job.seconds / job.budget_s, 0.99);
  else bar.removeAttribute("value");
  limits(job.remarks);
  score(job.best?.similarity_percent ?? null, job.best ? `${job.best.mss_db.toFixed(1)} dB apart, ${job.renders} renders` : "");
}

// --- the answer -------------------------------------------------------------------------------------------------------

async function showAnswer(id) {
  const found = await attempt(() => Promise.all([api.answer(id), api.get(`/jobs/${id}/rerender.wav`), api.candidates(id)]));
  if (!found || shown.job?.id !== id) return;
  const [document, wav, candidates] = found;
  const sound = await player.decode(wav);
  if (shown.job?.id !== id) return;
  shown.answer = document;
  byId("answer").hidden = false;
  player.set("b", sound);
  draw("b");
  hear("b");
  use(document);
  score(document.similarity.percent, `${document.similarity.mss_db.toFixed(1)} dB apart, ${document.renders} renders in ${Math.round(document.seconds)} s`);
  limits([document.verdict, ...(document.limits ?? []), ...document.input.remarks].filter(Boolean));
  showCandidates(id, candidates);
  byId("pushed").replaceChildren();
}

function use(document, name = "the answer") {
  shown.played = document;
  shown.playedName = name;
  rack.show(edits.open(document, schema), edits.home(shown.answer, schema));
  showEdited();
}

function showEdited(words = "") {
  const { edited } = rack.patch;
  const own = shown.played === shown.answer ? "Edited" : `Edited ${shown.playedName}`;
  byId("edited").textContent = edited ? `${own}${words}` : api.capital(shown.playedName);
  byId("undo").disabled = !edited && shown.played === shown.answer;
  const locked = rack.patch.devices.filter((device) => device.locked).map((device) => device.name);
  byId("again").textContent = locked.length ? `Search again, keeping ${locked.length === 1 ? locked[0] : `${locked.length} devices`}` : "Search again";
}

function rendered({ buffer, percent, mssDb, described }) {
  if (rack.patch.heard(described)) rack.stale = true;
  rack.refresh();
  player.set("b", buffer);
  draw("b");
  if (percent !== null) {
    score(percent, `${mssDb.toFixed(1)} dB apart`);
    showEdited(rack.patch.edited ? `: ${Math.round(percent)} %, the answer has ${Math.round(shown.answer.similarity.percent)} %` : "");
  }
}

function score(percent, words) {
  byId("similarity").textContent = percent === null ? "–" : `${Math.round(percent)} %`;
  byId("similarity-meter").value = percent ?? 0;
  byId("distance").textContent = words;
}

function limits(sentences) {
  byId("limits").replaceChildren(...sentences.map((sentence) => {
    const item = document.createElement("li");
    item.textContent = sentence;
    return item;
  }));
}

function showCandidates(id, candidates) {
  const items = candidates.map((candidate) => {
    const item = document.createElement("li"), words = document.createElement("span");
    words.textContent = candidate.chain.join(" → ") || "no effects";
    const share = document.createElement("b");
    share.textContent = `${Math.round(candidate.similarity_percent)} %`;
    item.append(
      action("▶", `Hear candidate ${candidate.number}`, async () => {
        player.set("b", await player.decode(await api.get(candidate.sound)));
        draw("b");
        hear("b");
        await player.play();
        score(candidate.similarity_percent, `candidate ${candidate.number}, ${candidate.mss_db.toFixed(1)} dB apart`);
      }),
      share, words,
      action("Use", `Use candidate ${candidate.number}`, async () => {
        const found = await api.getJson(candidate.patch);
        if (shown.job?.id !== id) return;
        use(found, `candidate ${candidate.number}`);
        edits.changed(id, rack.patch, true, byId("audition").checked);
      }),
    );
    return item;
  });
  byId("candidates").replaceChildren(...(items.length ? items : [Object.assign(document.createElement("li"), { textContent: "None that sounds different." })]));
}

function action(text, label, click) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: text, className: "small" });
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => attempt(click));
  return button;
}

// --- hearing and seeing -----------------------------------------------------------------------------------------------

function lane(side) {
  const figure = byId(`lane-${side}`);
  return { wave: figure.querySelector(".wave"), spectrum: figure.querySelector(".spectrum"), head: figure.querySelector(".playhead") };
}

function blank() {
  for (const side of ["a", "b"]) for (const canvas of [lane(side).wave, lane(side).spectrum]) clear(canvas);
}

function draw(side) {
  const buffer = player.buffers[side], { wave, spectrum } = lane(side);
  if (!buffer) return;
  waveform(wave, buffer);
  spectrogram(spectrum, buffer);
}

function hear(side) {
  player.hear(side);
  for (const name of ["a", "b"]) {
    const button = byId(`hear-${name}`);
    button.setAttribute("aria-checked", String(name === side));
    button.tabIndex = name === side ? 0 : -1;
    byId(`lane-${name}`).classList.toggle("heard", name === side);
  }
}

function animate() {
  const position = player.position;
  for (const side of ["a", "b"]) {
    const { head } = lane(side), buffer = player.buffers[side];
    head.hidden = position === null || !buffer;
    if (!head.hidden) head.style.left = `${(100 * position) / buffer.duration}%`;
  }
  if (position !== null) requestAnimationFrame(animate);
}

player.onchange = () => {
  byId("play").firstElementChild.textContent = player.playing ? "■" : "▶";
  byId("play").setAttribute("aria-label", player.playing ? "Stop" : "Play");
  animate();
};

// --- what a person does -----------------------------------------------------------------------------------------------

function base() {
  return shown.job.name.replace(/\.[^.]*$/, "");
}

async function push(adapt) {
  const box = byId("pushed"), button = byId("push");
  button.disabled = true;
  box.textContent = "Sending …";
  try {
    const report = await api.push(shown.job.id, rack.patch.body(), adapt);
    const words = `${report.live} has it on ${report.tracks.join(", ")}: ${report.read_back} of ${report.values.length} values read back as sent.`;
    box.textContent = report.not_set.length ? `${words} Not set: ${report.not_set.join("; ")}.` : words;
    box.dataset.good = "true";
  } catch (error) {
    box.textContent = error.message;
    box.dataset.good = "false";
    if (error.status === 502 && !adapt && /stock AbletonOSC/.test(error.message)) box.append(" ", action("Send what can be set", "Send what can be set", () => push(true)));
  } finally {
    button.disabled = false;
  }
}

async function searchAgain() {
  const locked = rack.patch.locks(), options = {};
  if (locked.length) options.lock = locked;
  if (rack.patch.edited || rack.patch.effects.some((device) => device.locked)) options.chain = rack.patch.body().chain.join(">") || "none";
  for (const key of ["note", "gate_s", "fast"]) if (shown.job.options[key] !== undefined) options[key] = shown.job.options[key];
  const job = await attempt(() => api.again(shown.job.id, options));
  if (job) location.hash = `job=${job.id}`;
}

function wire() {
  const on = (id, work) => byId(id).addEventListener("click", () => attempt(work));
  on("play", () => player.toggle());
  on("hear-a", () => hear("a"));
  on("hear-b", () => hear("b"));
  on("stop-keep", () => api.cancel(shown.job.id, true));
  on("cancel", () => api.cancel(shown.job.id, false));
  on("push", () => push(false));
  on("again", searchAgain);
  on("undo", () => {
    use(shown.answer);
    edits.changed(shown.job.id, rack.patch, true, false);
  });
  on("get-patch", async () => api.save(JSON.stringify(rack.patch.edited ? await api.describe(rack.patch.body()) : shown.played, null, 1), `${base()}.patch.json`, "application/json"));
  on("get-preset", async () => api.save(await api.preset(rack.patch.body()), `${base()}.vital`, "application/octet-stream"));
  on("get-sound", async () => api.save((await api.render(rack.patch.body())).wav, `${base()}-unmixed.wav`, "audio/wav"));
  on("get-report", async () => api.save(await api.get(`/jobs/${shown.job.id}/report.html`), `${base()}-report.html`, "text/html"));
  on("help-open", () => byId("help").showModal());
  byId("loop").addEventListener("change", (event) => player.setLoop(event.target.checked));
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    api.setToken(byId("token").value.trim());
    byId("token-form").hidden = true;
    start();
  });
  document.querySelector(".ab").addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    hear(player.side === "a" ? "b" : "a");
    byId(`hear-${player.side}`).focus();
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog") && event.target.type !== "checkbox";
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !shown.job) return;
    if (event.key.toLowerCase() === "x") hear(player.side === "a" ? "b" : "a");
    else if (event.key === " " && !event.target.closest("button, summary, a, input")) {
      player.toggle();
      event.preventDefault();
    }
  });
  const redraw = () => ["a", "b"].forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) redraw();
    width = innerWidth;
  });
  addEventListener("hashchange", route);
}

function route() {
  if (!schema) return start();
  const id = new URLSearchParams(location.hash.slice(1)).get("job");
  if (id && /^[0-9a-f]{16}$/.test(id)) open(id);
  attempt(listJobs);
}

// Once at a time; tried again by watchState until it has worked.
let starting = null;

function start() {
  starting ??= begin().finally(() => {
    starting = null;
  });
}

async function begin() {
  schema ??= await attempt(api.schema);
  if (schema) route();
}

wire();
intake(send, notice);
watchState();
start();
