// A wallet's open orders by market, on one scale each: the price now, every trigger, and the way between them.

import { $, el, svg, say } from "./dom.js";
import { ago, count, distance, falls, percent, price, tone, trigger, words } from "./format.js";
import { orderButton } from "./orders.js";

const FARTHEST = 0.5;
const cards = new Map(), rows = new Map();

/** Draw them; `cancel` is null where the wallet is not this browser's. What stays is changed in place, not made anew. */
export function showOpen({ wallet, orders, complete, markets, executes, cancel }) {
  const byMarket = Map.groupBy(orders, (order) => order.market ?? order.market_address);
  keep(cards, byMarket);
  keep(rows, new Set(orders.map(({ order }) => order)));
  const shown = [...byMarket].sort(([a], [b]) => a.localeCompare(b)).map(([name, of]) => {
    if (!cards.has(name)) cards.set(name, makeCard(name));
    const card = cards.get(name);
    const triggers = new Map(of.map((order) => [order, executes?.includes(order.order_type) ? Number(trigger(order)) || null : null]));
    const market = markets.find((market) => market.market === name);
    const now = Number(market?.price) || null;
    const scale = scaleOf(now, [...triggers.values()].filter(Boolean));
    updateCard(card, market, scale);
    const sorted = of.toSorted((a, b) => (triggers.get(b) ?? 0) - (triggers.get(a) ?? 0));
    arrange(card.list, sorted.map((order) => {
      if (!rows.has(order.order)) rows.set(order.order, makeRow(order));
      const row = rows.get(order.order);
      updateRow(row, order, triggers.get(order), now, scale, cancel);
      return row.node;
    }));
    return card.node;
  });
  if (!complete) shown.push(el("p", { className: "more", textContent: `The ${count(orders.length)} newest; the others are at /v1/orders.` }));
  if (!orders.length) shown.push(el("p", { className: "empty", textContent: wallet ? "This wallet has no open order." : "No wallet is shown." }));
  arrange($("open"), shown);
}

function keep(map, wanted) {
  for (const key of map.keys()) if (!wanted.has(key)) map.delete(key);
}

/** Moves nothing that is in its place, so that the focus and the reader's place stay. */
function arrange(parent, nodes) {
  nodes.forEach((node, i) => { if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null); });
  while (parent.children.length > nodes.length) parent.lastChild.remove();
}

function makeCard(name) {
  const parts = { now: el("span", { className: "price" }), age: el("span", { className: "age" }), why: el("p", { className: "why bad" }),
    axis: svg("svg", { class: "way", "aria-hidden": "true" }), list: el("ul", { className: "ladder" }) };
  parts.node = el("article", { className: "card market", "data-market": name },
    el("div", { className: "rung head" }, el("h3", {}, `${name} `, parts.now), parts.axis, parts.age), parts.why, parts.list);
  return parts;
}

function updateCard({ now, age, why, axis }, market, scale) {
  say(now, market ? price(market.price) : "");
  say(age, market?.price_age_s == null ? "" : `${ago(market.price_age_s)} old`);
  say(why, !market ? "The keeper does not watch this market." : market.executing ? "" : `Nothing is executed here now: ${market.executing_reason}`);
  const ticks = scale ? [[scale.low, "start", "0%"], [scale.now, "middle", at(scale, scale.now)], [scale.high, "end", "100%"]] : [];
  // The ends are not written where the price would be written over them.
  const clear = ticks.filter(([, anchor], i) => i === 1 || (anchor === "start" ? scale.x(scale.now) > 22 : scale.x(scale.now) < 78));
  axis.replaceChildren(...clear.map(([value, anchor, x]) => {
    const tick = svg("text", { class: "tick", x, y: "70%", "text-anchor": anchor });
    tick.textContent = price(value);
    return tick;
  }));
}

function makeRow(order) {
  const parts = {
    status: el("span", {}), where: el("strong"), away: el("span"), reason: el("p", { className: "reason" }),
    way: svg("svg", { class: "way", "aria-hidden": "true" }),
    cancel: el("button", { type: "button", className: "text", textContent: "Cancel", "data-cancel": order.order }),
  };
  const name = `${words(order.order_type)} ${order.side}`;
  parts.cancel.setAttribute("aria-label", `Cancel ${name}, ${order.size}, trigger ${price(trigger(order))}`);
  parts.node = el("li", { className: "rung", "data-order": order.order },
    el("div", { className: "what" }, parts.status, orderButton(order.order, name), el("span", { textContent: `${order.size} ×${order.leverage}` })),
    parts.way, el("div", { className: "where" }, parts.where, parts.away), parts.cancel, parts.reason);
  return parts;
}

function updateRow(parts, order, at, now, scale, cancel) {
  const down = falls(order);
  say(parts.status, words(order.status), `pill ${tone(order.status)}`);
  say(parts.reason, order.status_reason);
  say(parts.where, at ? `${down ? "≤" : "≥"} ${price(at)}` : price(trigger(order)));
  say(parts.away, at && now ? away(at, now, down) : "");
  parts.cancel.hidden = !cancel;
  parts.cancel.disabled = order.status === "cancelling" || order.onchain_status !== "pending";
  parts.cancel.onclick = () => cancel(order);
  drawWay(parts.way, at, scale, down);
}

function away(at, now, down) {
  const far = distance(at, now);
  if (far === 0 || far < 0 !== down) return "is met";
  return `${percent(Math.abs(far))} to ${down ? "fall" : "rise"}`;
}

/** Wide enough for every trigger that is within half the price; what lies farther is drawn at the edge. */
function scaleOf(now, triggers) {
  if (!now) return null;
  const near = triggers.filter((at) => Math.abs(distance(at, now)) <= FARTHEST);
  const [least, most] = [Math.min(now * 0.995, ...near), Math.max(now * 1.005, ...near)];
  const edge = (most - least) * 0.06;
  const [low, high] = [least - edge, most + edge];
  return { low, high, now, x: (value) => Math.min(100, Math.max(0, ((value - low) / (high - low)) * 100)) };
}

const at = (scale, value) => `${scale.x(value).toFixed(2)}%`;

function drawWay(way, trigger, scale, down) {
  if (!scale) {
    way.replaceChildren();
    return;
  }
  const y = "50%", now = at(scale, scale.now), parts = [svg("line", { class: "axis", x1: "0%", x2: "100%", y1: y, y2: y })];
  if (trigger) {
    const x = at(scale, trigger), side = down ? "below" : "above";
    parts.push(svg("line", { class: `gap ${side}`, x1: now, x2: x, y1: y, y2: y }), svg("circle", { class: `dot ${side}`, cx: x, cy: y, r: 5 }));
  }
  parts.push(svg("line", { class: "now", x1: now, x2: now, y1: "0%", y2: "100%" }));
  way.replaceChildren(...parts);
}
