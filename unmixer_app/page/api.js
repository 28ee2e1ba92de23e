// The service, as functions. Every failure is an Error whose message is the service's sentence.

let token = sessionStorage.getItem("token") ?? "";

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  setToken(given);
  history.replaceState(null, "", location.pathname + location.search);
}

export function setToken(text) {
  token = text;
  sessionStorage.setItem("token", text);
}

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function ask(method, path, { body, form, signal } = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: form ?? (body === undefined ? undefined : JSON.stringify(body)) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service does not answer; is it still running?");
  }
  if (!response.ok) throw new Refused(response.status, await sentence(response));
  return response;
}

async function sentence(response) {
  const text = await response.text();
  try {
    const found = JSON.parse(text);
    return capital(found.detail ?? (found.problems ?? []).join(" "));
  } catch {
    return `The service answered ${response.status}.`;
  }
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const json = async (method, path, rest) => (await ask(method, path, rest)).json();
const bytes = async (method, path, rest) => (await ask(method, path, rest)).arrayBuffer();

export const ready = async () => {
  try {
    return await json("GET", "/ready");
  } catch (error) {
    if (error.status === 503) return { ready: false, problems: [error.message] };
    throw error;
  }
};
export const schema = () => json("GET", "/schema");
export const jobs = () => json("GET", "/jobs");
export const job = (id) => json("GET", `/jobs/${id}`);
export const cancel = (id, keep) => json("DELETE", `/jobs/${id}${keep ? "?keep=true" : ""}`);
export const again = (id, options) => json("POST", `/jobs/${id}/again`, { body: options });
export const answer = (id) => json("GET", `/jobs/${id}/patch.json`);
export const candidates = (id) => json("GET", `/jobs/${id}/candidates`);
export const describe = (patch, signal) => json("POST", "/describe", { body: patch, signal });
export const push = (id, patch, adapt) => json("POST", `/jobs/${id}/push${adapt ? "?adapt=true" : ""}`, { body: patch });
export const get = (path) => bytes("GET", path);
export const getJson = (path) => json("GET", path);
export const preset = (patch) => bytes("POST", "/preset", { body: patch });

export function unmix(file, name, options) {
  const form = new FormData();
  form.append("file", file, name);
  for (const [key, value] of Object.entries(options)) form.append(key, String(value));
  return json("POST", "/unmix", { form });
}

export async function render(patch, id, signal) {
  const response = await ask("POST", `/render${id ? `?job=${id}` : ""}`, { body: patch, signal });
  const number = (name) => (response.headers.has(name) ? Number(response.headers.get(name)) : null);
  return { wav: await response.arrayBuffer(), mssDb: number("x-mss-db"), percent: number("x-similarity-percent") };
}

// Calls `each(job)` for every event, until the job has ended, and again after a broken connection.
export async function follow(id, each, signal) {
  for (let pause = 500; !signal.aborted; pause = Math.min(2 * pause, 8000)) {
    try {
      const response = await ask("GET", `/jobs/${id}/events`, { signal });
      for await (const event of events(response.body)) {
        pause = 500;
        if (signal.aborted) return;
        each(JSON.parse(event.data));
        if (event.name === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && error.status !== 429) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const of = (field) => lines.filter((line) => line.startsWith(`${field}: `)).map((line) => line.slice(field.length + 2)).join("\n");
      if (of("data")) yield { name: of("event"), data: of("data") };
    }
  }
}

export function save(content, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
