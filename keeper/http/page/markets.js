// Market cards, each with a picture of the triggers around the price.

import { $, el, svg, say } from "./dom.js";
import { ago, count, percent, price, words } from "./format.js";

const WIDTH = 320, HEIGHT = 92, BASE = 74, BINS = 32;

export function showMarkets(markets) {
  const cards = $("market-cards");
  if (!markets.length) {
    cards.replaceChildren(el("p", { className: "empty", textContent: "The program has no market yet." }));
  } else {
    cards.replaceChildren(...markets.map(card));
  }
  const select = $("market");
  const known = new Set([...select.options].map((option) => option.value));
  for (const { market } of markets) if (!known.has(market)) select.append(el("option", { value: market, textContent: market }));
}

function card(market) {
  const total = market.resting.reduce((sum, { orders }) => sum + orders, 0);
  const types = market.resting.map(({ order_type, orders }) => `${count(orders)} ${words(order_type)}`).join(" · ");
  return el("article", { className: "card", "data-market": market.market },
    el("h3", {}, market.market,
      el("span", { className: `pill ${market.executing ? "good" : "bad"}`, textContent: market.executing ? "executing" : "not executing" })),
    el("div", { className: "price" }, price(market.price),
      el("span", { className: "age", textContent: market.price_age_s === null ? "" : `${ago(market.price_age_s)} old · slot ${count(market.price_slot)}` })),
    market.executing ? null : el("p", { className: "why bad", textContent: market.executing_reason }),
    picture(market),
    el("div", { className: "sides" }, side("below", market.below[0]), side("above", market.above[0])),
    el("p", { className: "types", textContent: total ? types : "No orders rest here." }));
}

function side(name, level) {
  return el("div", {}, el("span", { textContent: `nearest ${name}` }),
    level ? `${price(level.trigger_price)} (${percent(level.distance ?? 0)})` : "none");
}

/** Bars of order counts by trigger price, those that a falling price meets in one colour, the others in another. */
function picture(market) {
  const now = Number(market.price);
  const levels = [...market.below.map((l) => ({ ...l, falls: true })), ...market.above.map((l) => ({ ...l, falls: false }))];
  const text = levels.length ? `${market.below.length} triggers below and ${market.above.length} above the price` : "no triggers";
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${market.market}: ${text}` });
  drawing.append(svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: BASE, y2: BASE }));
  if (!now) return drawing;
  const span = reach(levels, now);
  const x = (p) => ((p - now) / (2 * span) + 0.5) * WIDTH;
  const bins = new Map();
  for (const level of levels) {
    const at = Math.min(BINS - 1, Math.max(0, Math.floor(x(Number(level.trigger_price)) / WIDTH * BINS)));
    const key = `${at}${level.falls ? "b" : "a"}`;
    const bin = bins.get(key) ?? { at, falls: level.falls, orders: 0, from: level.trigger_price };
    bin.orders += level.orders;
    bins.set(key, bin);
  }
  const most = Math.max(1, ...[...bins.values()].map((bin) => bin.orders));
  for (const { at, falls, orders } of bins.values()) {
    const height = 6 + (orders / most) * (BASE - 14);
    const bar = svg("rect", {
      class: falls ? "bar-below" : "bar-above", x: at * WIDTH / BINS + 1, width: WIDTH / BINS - 2,
      y: BASE - height, height, rx: 1.5, opacity: 0.85,
    }, svg("title"));
    bar.firstChild.textContent = `${orders} order${orders === 1 ? "" : "s"} near ${price(now + (((at + 0.5) / BINS) - 0.5) * 2 * span)}`;
    drawing.append(bar);
  }
  drawing.append(svg("line", { class: "now", x1: WIDTH / 2, x2: WIDTH / 2, y1: 4, y2: BASE }));
  for (const [at, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const tick = svg("text", { class: "tick", x: at * WIDTH, y: HEIGHT - 4, "text-anchor": anchor });
    say(tick, price(now + (at - 0.5) * 2 * span));
    drawing.append(tick);
  }
  return drawing;
}

/** Half the picture's width in price: up to the farthest trigger listed, but at least 2 % and at most 50 %. */
function reach(levels, now) {
  const farthest = Math.max(0, ...levels.map((level) => Math.abs(Number(level.trigger_price) - now)));
  return Math.min(0.5 * now, Math.max(0.02 * now, farthest * 1.05));
}
