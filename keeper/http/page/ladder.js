// A wallet's open orders and positions by market, on one scale each: the price now, and how far from it each trigger and
// each entry is.

import { $, el, svg, say } from "./dom.js";
import { ago, amount, count, distance, falls, percent, price, since, tone, trigger, words } from "./format.js";
import { orderButton } from "./orders.js";

const FARTHEST = 0.5;
const cards = new Map(), rows = new Map();

/** Draw them; `acts` are `change` and `cancel`, null where the wallet is not this browser's. What stays is changed in place, not made anew. */
export function showOpen({ wallet, orders, complete, positions, markets, executes, acts }) {
  const rungs = [...positions.map((position) => held(position)), ...orders.map((order) => waiting(order, executes, acts))];
  const byMarket = Map.groupBy(rungs, ({ market }) => market);
  keep(cards, byMarket);
  keep(rows, new Set(rungs.map(({ key }) => key)));
  const shown = [...byMarket].sort(([a], [b]) => a.localeCompare(b)).map(([name, of]) => {
    const market = markets.find((market) => market.market === name);
    const scale = scaleOf(Number(market?.price) || null, of.map(({ at }) => at).filter(Boolean));
    if (!cards.has(name)) cards.set(name, makeCard(name));
    const card = cards.get(name);
    updateCard(card, market, scale);
    // As on a ladder, the highest price on top.
    arrange(card.list, of.toSorted((a, b) => (b.at ?? 0) - (a.at ?? 0)).map((rung) => {
      if (!rows.has(rung.key)) rows.set(rung.key, makeRow(rung));
      const parts = rows.get(rung.key);
      rung.update(parts, scale);
      return parts.node;
    }));
    return card.node;
  });
  if (!complete) shown.push(el("p", { className: "more", textContent: `The ${count(orders.length)} newest orders; the others are at /v1/orders.` }));
  if (!rungs.length) shown.push(el("p", { className: "empty", textContent: wallet ? "This wallet has no open order and no position." : "No wallet is shown." }));
  arrange($("open"), shown);
}

/** An order that waits for its trigger. */
function waiting(order, executes, acts) {
  const at = executes?.includes(order.order_type) ? Number(trigger(order)) || null : null;
  const down = falls(order), name = `${words(order.order_type)} ${order.side}`;
  return {
    key: order.order, market: order.market ?? order.market_address, at,
    what: [orderButton(order.order, name), el("span", { textContent: `${order.size} ×${order.leverage}` })],
    about: `${name}, ${order.size}, trigger ${price(trigger(order))}`,
    update(parts, scale) {
      say(parts.status, words(order.status), `pill ${tone(order.status)}`);
      say(parts.reason, order.status_reason);
      say(parts.where, at ? `${down ? "≤" : "≥"} ${price(at)}` : price(trigger(order)));
      say(parts.away, at && scale ? away(at, scale.now, down) : "");
      parts.act.hidden = !acts;
      for (const button of parts.act.children) {
        button.disabled = order.status === "cancelling" || order.onchain_status !== "pending";
        button.onclick = () => acts[button.dataset.act](order);
      }
      drawWay(parts.way, scale, at, down ? "below" : "above");
    },
  };
}

/** A position that a fill opened. */
function held(position) {
  const { side, entry_price_quote: entry, liquidation_price_quote: liquidation } = position;
  const at = Number(entry), quote = position.market?.split("/")[1] ?? "";
  return {
    key: position.position, market: position.market ?? position.market_address, at,
    what: [el("strong", { textContent: `${side} position` }), el("span", { textContent: `${position.size_base} ×${position.leverage}` })],
    update(parts, scale) {
      const profit = scale && (scale.now - at) * Number(position.size_base) * (side === "long" ? 1 : -1);
      const won = profit >= 0;
      say(parts.status, "held", "pill busy");
      say(parts.where, scale ? `${won ? "+" : "−"}${amount(Math.abs(profit))} ${quote}` : "", won ? "good" : "bad");
      say(parts.away, `since ${price(entry)}`);
      say(parts.reason, `Entered at ${price(entry)} ${since(position.opened_at)}, liquidated at ${price(liquidation)}. ` +
        `Its margin is ${amount(position.initial_margin_quote)}, and ${amount(position.maintenance_margin_quote)} must stay.`);
      drawWay(parts.way, scale, at, won ? "above" : "below", Number(liquidation));
    },
  };
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

function makeRow({ key, what, about }) {
  const button = (act, text) => el("button", { type: "button", className: "text", textContent: text, "data-act": act, "aria-label": `${text} ${about}` });
  const parts = {
    status: el("span"), where: el("strong"), away: el("span"), reason: el("p", { className: "reason" }),
    way: svg("svg", { class: "way", "aria-hidden": "true" }),
    act: about && el("div", { className: "act", "data-order": key }, button("change", "Change"), button("cancel", "Cancel")),
  };
  parts.node = el("li", { className: "rung" }, el("div", { className: "what" }, parts.status, ...what),
    parts.way, el("div", { className: "where" }, parts.where, parts.away), parts.act, parts.reason);
  return parts;
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

/** From the price to where the trigger or the entry is; a bar where a position is liquidated, if that is near. */
function drawWay(way, scale, end, side, liquidation) {
  const y = "50%", parts = [];
  if (scale) {
    const now = at(scale, scale.now);
    parts.push(svg("line", { class: "axis", x1: "0%", x2: "100%", y1: y, y2: y }));
    if (end) {
      const x = at(scale, end);
      parts.push(svg("line", { class: `gap ${side}`, x1: now, x2: x, y1: y, y2: y }));
      // A trigger is a point that the price may reach, an entry a ring that it left.
      parts.push(svg("circle", { class: `${liquidation ? "ring" : "dot"} ${side}`, cx: x, cy: y, r: 5 }));
    }
    if (liquidation > scale.low && liquidation < scale.high) {
      const x = at(scale, liquidation);
      parts.push(svg("line", { class: "end", x1: x, x2: x, y1: "30%", y2: "70%" }));
    }
    parts.push(svg("line", { class: "now", x1: now, x2: now, y1: "0%", y2: "100%" }));
  }
  way.replaceChildren(...parts);
}
