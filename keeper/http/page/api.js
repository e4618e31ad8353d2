// The API and the stream, and what is said when they do not answer.

import { $, say } from "./dom.js";

const troubles = new Map();

function trouble(what, text) {
  if (text) troubles.set(what, text);
  else troubles.delete(what);
  $("trouble").hidden = troubles.size === 0;
  say($("trouble"), [...troubles.values()].join(" "));
}

/** JSON of a path; an Error with the problem's own sentence when it is refused. */
export async function get(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(10_000) });
  const body = await response.json();
  if (!response.ok && path !== "/healthz") throw new Error(body.detail ?? `HTTP ${response.status}`);
  return body;
}

/** Ask again and again while the page can be seen; one request at a time. Returns a function that asks at once. */
export function poll(path, everyMs, show) {
  let timer, asking = false;
  async function ask() {
    clearTimeout(timer);
    if (asking) return;
    asking = true;
    if (!document.hidden) {
      try {
        show(await get(path()));
        trouble(path, "");
      } catch (error) {
        const why = error instanceof TypeError || error.name === "TimeoutError" ? "The keeper does not answer." : error.message;
        trouble(path, why);
      }
    }
    asking = false;
    timer = setTimeout(ask, everyMs);
  }
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  ask();
  return ask;
}

/** Follow the orders that fit `filters`. Returns a function that ends it. The browser resumes a broken stream itself. */
export function follow(filters, { snapshot, order, state }) {
  let source, retry, ended = false;
  function open() {
    const query = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
    source = new EventSource(`/v1/orders/stream?${query}`);
    source.onopen = () => state("live", "good");
    source.addEventListener("snapshot", (event) => snapshot(JSON.parse(event.data)));
    source.addEventListener("order", (event) => order(JSON.parse(event.data)));
    source.onerror = () => {
      state("reconnecting", "warn");
      // Refused, not broken: an EventSource gives up then.
      if (source.readyState === EventSource.CLOSED && !ended) retry = setTimeout(open, 5_000);
    };
  }
  open();
  return () => { ended = true; clearTimeout(retry); source.close(); };
}
