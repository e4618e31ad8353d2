// One order in full: why it stands so, its position, and every attempt.

import { el } from "./dom.js";
import { get, sentence } from "./api.js";
import { price, since, tone, trigger, words } from "./format.js";

const body = el("div");
const dialog = el("dialog", { id: "detail", "aria-labelledby": "detail-title" },
  el("form", { method: "dialog" }, el("h2", { id: "detail-title", textContent: "Order" }), el("button", { "aria-label": "Close", textContent: "✕" })),
  body);
document.body.append(dialog);

export async function openDetail(address) {
  body.replaceChildren(el("p", { className: "empty", textContent: "…" }));
  if (!dialog.open) dialog.showModal();
  try {
    body.replaceChildren(...parts(await get(`/v1/orders/${address}`)));
  } catch (error) {
    body.replaceChildren(el("p", { className: "bad", textContent: sentence(error) }));
  }
}

function parts(order) {
  const facts = [
    ["Address", el("code", { textContent: order.order })],
    ["Wallet", el("a", { href: `/wallet#${order.user}` }, el("code", { textContent: order.user }))],
    ["Terms", `${words(order.order_type)} ${order.side}, ${order.size} ${order.market ?? ""} ×${order.leverage}, trigger ${price(trigger(order))}`],
    ["On chain", order.onchain_status ? `${words(order.onchain_status)}, slot ${order.slot}` : "not yet"],
    ["Position", order.position ? el("code", { textContent: order.position }) : "none"],
  ].filter(([, value]) => value);
  return [
    el("p", {}, el("span", { className: `pill ${tone(order.status)}`, textContent: words(order.status) }), ` ${order.status_reason}`),
    el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", { textContent: name }), el("dd", {}, value)])),
    ...order.attempts.toReversed().map(attempt),
  ];
}

function attempt(a) {
  const error = a.error ? `${a.error.name}${a.error.detail ? `: ${a.error.detail}` : ""}` : null;
  return el("div", { className: "attempt" },
    el("strong", { textContent: `${words(a.kind)} ${a.number}: ${words(a.fate ?? a.state)}` }), ` · ${since(a.signed_at)}`,
    a.slot ? ` · slot ${a.slot}` : "",
    error ? el("div", { className: "bad", textContent: error }) : null,
    el("div", {}, el("code", { textContent: a.signature })));
}
