// A page to read and to try the API with, made from its own description.

import { $, el } from "./dom.js";

const STREAM_SHOWN_MS = 10_000;

const description = await (await fetch("/v1/openapi.json")).json();
$("about").textContent = description.info.description.replaceAll("`", "").replaceAll(/([^\n])\n(?!\n)/g, "$1 ");

const byTag = new Map();
for (const [path, operations] of Object.entries(description.paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    const tag = operation.tags?.[0] ?? "other";
    byTag.set(tag, [...(byTag.get(tag) ?? []), { path, method: method.toUpperCase(), ...operation }]);
  }
}
$("operations").replaceChildren(...[...byTag].map(([tag, operations]) => el("section", {}, el("h2", { textContent: tag }), ...operations.map(show))));

function show(operation) {
  const parameters = (operation.parameters ?? []).map((parameter) => ({ ...parameter, input: el("input", {
    name: parameter.name, "aria-label": parameter.name, spellcheck: false, placeholder: parameter.schema?.default ?? "",
  }) }));
  const content = operation.requestBody?.content?.["application/json"];
  const body = content && el("textarea", {
    "aria-label": "Body", spellcheck: false, value: JSON.stringify(content.example ?? {}, null, 2),
  });
  const output = el("pre", { hidden: true, tabIndex: 0, "aria-label": "Answer" });
  const send = el("button", { type: "button", className: "send", textContent: "Send",
    onclick: () => ask(operation, parameters, body, output) });
  const inside = el("div", { className: "inside" },
    el("p", { textContent: (operation.description ?? "").replaceAll("`", "") }),
    parameters.length ? el("table", {}, el("tbody", {}, ...parameters.map(parameterRow))) : null,
    body ? el("h3", { textContent: "Body" }) : null, body, send, output,
    el("h3", { textContent: "Answers" }), answers(operation));
  return el("details", { className: "operation" },
    el("summary", {}, el("strong", { textContent: operation.method }), el("code", { textContent: operation.path }),
      el("span", { textContent: operation.summary ?? "" })), inside);
}

function parameterRow({ name, in: place, required, description: about, input }) {
  return el("tr", {}, el("td", {}, el("code", { textContent: name }), required ? " (required)" : ""),
    el("td", { textContent: place }), el("td", {}, input), el("td", { className: "reason", textContent: about ?? "" }));
}

function answers(operation) {
  return el("table", {}, el("tbody", {}, ...Object.entries(operation.responses).map(([status, answer]) =>
    el("tr", {}, el("td", { textContent: status }), el("td", { className: "reason", textContent: answer.description.replaceAll("`", "") })))));
}

async function ask(operation, parameters, body, output) {
  const given = parameters.filter(({ input }) => input.value !== "");
  const of = (place) => given.filter((parameter) => parameter.in === place).map(({ name, input }) => [name, input.value]);
  let path = operation.path;
  for (const [name, value] of of("path")) path = path.replace(`{${name}}`, encodeURIComponent(value));
  const query = new URLSearchParams(of("query"));
  const headers = Object.fromEntries(of("header"));
  if (body) headers["Content-Type"] = "application/json";
  if ($("token").value) headers.Authorization = `Bearer ${$("token").value}`;
  output.hidden = false;
  output.textContent = "…";
  try {
    const response = await fetch(query.size ? `${path}?${query}` : path, { method: operation.method, headers, body: body?.value });
    const begin = `HTTP ${response.status}\n${[...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n")}\n\n`;
    output.textContent = begin;
    if (response.headers.get("content-type")?.startsWith("text/event-stream")) await showStream(response, output);
    else output.textContent = begin + pretty(await response.text());
  } catch (error) {
    output.textContent = String(error);
  }
}

/** The beginning of a stream; it is let go of after a while. */
async function showStream(response, output) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const timer = setTimeout(() => reader.cancel(), STREAM_SHOWN_MS);
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) output.append(piece.value);
  clearTimeout(timer);
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
