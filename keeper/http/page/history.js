// Executions with their latency, and failures with their reasons.

import { $, el, svg, row, emptyRow, say } from "./dom.js";
import { count, milliseconds, short, since, tone, words } from "./format.js";
import { orderButton } from "./orders.js";

export function showExecutions({ executions }) {
  const rows = executions.map((e) => row([
    ["Outcome", outcome(e.fate ?? e.state, e.error), "nowrap"],
    ["Market", e.market ?? "?", "nowrap"],
    ["Order", orderButton(e.order, e.order_type ? `${words(e.order_type)} ${e.side}` : short(e.order)), "nowrap"],
    ["Size", e.size ?? "", "num"],
    ["Latency", milliseconds(e.latency_ms), "num"],
    ["Signature", el("code", { textContent: short(e.signature), title: e.signature }), "nowrap"],
    ["Signed", since(e.signed_at), "num"],
  ]));
  $("executions").tBodies[0].replaceChildren(...(rows.length ? rows : [emptyRow(7, "Nothing was executed yet.")]));
  showLatencies(executions.map((e) => e.latency_ms).filter((ms) => ms !== null).toReversed());
}

function outcome(word, error) {
  const pill = el("span", { className: `pill ${tone(word)}`, textContent: words(word) });
  if (error) pill.title = `${error.name} ${error.detail ?? ""}`;
  return pill;
}

function showLatencies(latencies) {
  const chart = $("latency-chart");
  if (!latencies.length) {
    say($("latency"), "");
    chart.replaceChildren();
    return;
  }
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  say($("latency"), `median ${milliseconds(at(0.5))} · slowest ${milliseconds(sorted.at(-1))} of ${count(sorted.length)}`);
  const most = sorted.at(-1), width = Math.min(14, 600 / latencies.length);
  chart.replaceChildren(...latencies.map((ms, n) => {
    const height = Math.max(2, (ms / most) * 42);
    return svg("rect", { x: n * width, width: Math.max(1, width - 3), rx: 1, y: 44 - height, height });
  }));
}

export function showFailures({ failures }) {
  const rows = failures.map((f) => {
    const last = f.attempts.findLast((attempt) => attempt.error);
    return row([
      ["Status", el("span", { className: `pill ${tone(f.status)}`, textContent: words(f.status ?? "unknown") }), "nowrap"],
      ["Market", f.market ?? "?", "nowrap"],
      ["Order", orderButton(f.order, f.order_type ? `${words(f.order_type)} ${f.side}` : short(f.order)), "nowrap"],
      ["Error", last ? el("code", { textContent: last.error.name, title: last.error.detail ?? "" }) : "", ""],
      ["Attempts", count(f.attempts.length), "num"],
      ["Why", f.reason, "reason"],
    ]);
  });
  $("failures").tBodies[0].replaceChildren(...(rows.length ? rows : [emptyRow(6, "Nothing failed.")]));
}
