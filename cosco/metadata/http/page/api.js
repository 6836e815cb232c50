// Asks the interface, and says what is wrong in its words.

const BASE = "/api/v1/";
const TIMEOUT_MS = 15000;

export class Failed extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(method, path, body) {
  const options = { method, headers: {}, signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (method !== "GET") options.headers["Content-Type"] = "application/json";
  if (body !== undefined) options.body = JSON.stringify(body);
  let reply;
  try {
    reply = await fetch(BASE + path, options);
  } catch {
    throw new Failed(0, "the metadata service does not answer");
  }
  if (reply.status === 204) return null;
  let found = null;
  try {
    found = await reply.json();
  } catch {
    throw new Failed(reply.status, `the answer is none of the interface (${reply.status})`);
  }
  if (!reply.ok) throw new Failed(reply.status, found.detail ?? reply.statusText);
  return found;
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);
export const remove = (path) => ask("DELETE", path);

// A path with those parameters that say something.
export function query(path, parameters) {
  const said = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  return said.length ? `${path}?${new URLSearchParams(said)}` : path;
}

// Calls `act` now, and again `every_ms` after it has answered, while the page is looked at.
// `act` is told by a signal if its answer is not wanted any more.
export function repeat(act, every_ms) {
  const over = new AbortController();
  let timer = 0;
  const turn = async () => {
    if (!document.hidden) await act(over.signal);
    if (!over.signal.aborted) timer = setTimeout(turn, every_ms);
  };
  const seen = () => {
    if (document.hidden || over.signal.aborted) return;
    clearTimeout(timer);
    turn();
  };
  document.addEventListener("visibilitychange", seen, { signal: over.signal });
  turn();
  return {
    now: seen,
    stop() {
      clearTimeout(timer);
      over.abort();
    },
  };
}
