// The live orders: kept by address from the stream, drawn at most once a frame.

import { $, el, row, emptyRow, say } from "./dom.js";
import { count, price, since, tone, trigger, words } from "./format.js";
import { follow } from "./api.js";
import { openDetail } from "./detail.js";

const ENDED = new Set(["filled", "cancelled", "expired", "rejected", "dropped"]);
const SHOWN = 60, ENDED_STAYS_MS = 60_000, KEPT = 2_000;

const orders = new Map();
let complete = true, drawing = false, stop = () => {}, onEnd = () => {};

export function followOrders(filters, ended) {
  stop();
  onEnd = ended ?? onEnd;
  orders.clear();
  stop = follow(filters, {
    snapshot(data) {
      orders.clear();
      for (const order of data.orders) orders.set(order.order, order);
      complete = data.complete;
      draw();
    },
    order(order) {
      const before = orders.get(order.order);
      orders.set(order.order, { ...order, arrived: Date.now(), isNew: before?.status !== order.status });
      if (ENDED.has(order.status) || order.status === "failed" || order.status === "executing") onEnd();
      draw();
    },
    state(text, className) { say($("stream"), text, `pill quiet ${className}`); },
  });
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; redraw(); });
}

export function redraw() {
  const now = Date.now();
  for (const [address, order] of orders) {
    if (ENDED.has(order.status) && (order.arrived === undefined || now - order.arrived > ENDED_STAYS_MS)) orders.delete(address);
  }
  const newest = [...orders.values()].sort((a, b) => b.updated_at - a.updated_at);
  for (const order of newest.slice(KEPT)) orders.delete(order.order);
  const body = $("orders").tBodies[0];
  const focused = document.activeElement?.dataset?.order;
  const rows = newest.slice(0, SHOWN).map(orderRow);
  body.replaceChildren(...(rows.length ? rows : [emptyRow(7, "No order is live.")]));
  if (focused) body.querySelector(`[data-order="${focused}"]`)?.focus();
  for (const order of orders.values()) order.isNew = false;
  const hidden = newest.length - rows.length;
  say($("orders-more"), hidden > 0 || !complete ? `The ${count(rows.length)} latest of ${count(newest.length)}${complete ? "" : " or more"}.` : "");
}

function orderRow(order) {
  return row([
    ["Status", el("span", { className: `pill ${tone(order.status)}`, textContent: words(order.status) }), "nowrap"],
    ["Market", order.market ?? "?", "nowrap"],
    ["Order", orderButton(order.order, `${words(order.order_type)} ${order.side}`), "nowrap"],
    ["Size", `${order.size} ×${order.leverage}`, "num"],
    ["Trigger", order.trailing_distance && !order.trigger_price ? `${Number(order.trailing_distance) * 100} % trail` : price(trigger(order)), "num"],
    ["Why", order.status_reason, "reason"],
    ["Changed", since(order.updated_at), "num"],
  ], { className: order.isNew ? "new" : "" });
}

export function orderButton(address, text) {
  return el("button", { type: "button", className: "link", textContent: text, title: address, "data-order": address, onclick: () => openDetail(address) });
}
