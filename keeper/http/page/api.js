// The API and the stream, and what is said when they do not answer.

import { $, say } from "./dom.js";

const ANSWER_WITHIN_MS = 15_000;
const troubles = new Map();

function trouble(what, text) {
  if (text) troubles.set(what, text);
  else troubles.delete(what);
  $("trouble").hidden = troubles.size === 0;
  say($("trouble"), [...new Set(troubles.values())].join(" "));
}

/** What the API refused, in its own sentence; `code` is stable, `field` the field at fault. No answer has no code. */
export class Refused extends Error {
  constructor({ detail, code, field }, status, retryAfter) {
    super(detail ?? `The keeper answered with HTTP ${status}.`);
    Object.assign(this, { code, field, status, retryAfterMs: retryAfter ? Number(retryAfter) * 1_000 : null });
  }
}

/** Whether nothing is known of what became of the request. */
export const unanswered = (error) => error instanceof TypeError || error.name === "TimeoutError" || error.name === "AbortError";
export const sentence = (error) => (unanswered(error) ? "The keeper does not answer." : error.message);

async function answer(path, request, withinMs = ANSWER_WITHIN_MS) {
  const response = await fetch(path, { ...request, signal: AbortSignal.timeout(withinMs) });
  if (response.status === 304) return { response, body: null };
  // A proxy's own error is no JSON.
  const body = await response.json().catch((error) => {
    if (response.ok) throw error;
    return {};
  });
  if (!response.ok && path !== "/healthz") throw new Refused(body, response.status, response.headers.get("Retry-After"));
  return { response, body };
}

/** JSON of a path; Refused with the problem's own sentence when it is refused. */
export async function get(path) {
  return (await answer(path, { headers: { Accept: "application/json" } })).body;
}

/** The answer to a JSON body; Refused when it is refused. */
export async function post(path, body) {
  const headers = { Accept: "application/json", "Content-Type": "application/json" };
  return (await answer(path, { method: "POST", headers, body: JSON.stringify(body) })).body;
}

/** The order as it is and whenever it changes, and null now and then while it does not. It never ends: leave the loop. */
export async function* changes(order) {
  const seconds = 20;
  let tag = "";
  while (true) {
    // Its own tag, and not the browser's cache, so that "nothing new" is an answer.
    const request = { cache: "no-store", headers: { Accept: "application/json", ...(tag && { "If-None-Match": tag }) } };
    const path = `/v1/orders/${order}${tag && `?wait_s=${seconds}`}`;
    const { response, body } = await answer(path, request, seconds * 1_000 + ANSWER_WITHIN_MS);
    tag = response.headers.get("ETag") ?? "";
    yield body;
  }
}

/** Ask again and again while the page can be seen; one request at a time. Returns a function that asks at once.
 *
 * `path` gives null when there is nothing to ask. An answer to what is not the question any more is dropped.
 */
export function poll(path, everyMs, show) {
  let timer, asking = false, again = false;
  async function ask() {
    clearTimeout(timer);
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    const asked = document.hidden ? null : path();
    try {
      const found = asked && await get(asked).catch((error) => trouble(path, asked === path() ? sentence(error) : ""));
      if (found) trouble(path, "");
      if (found && asked === path()) show(found);
    } finally {
      asking = false;
      timer = setTimeout(ask, again ? 0 : everyMs);
      again = false;
    }
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
