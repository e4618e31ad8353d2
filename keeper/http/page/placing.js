// The form for a new order: what its type needs, what it would do at this price, and what the keeper says is wrong.

import { $, el, say } from "./dom.js";
import { post } from "./api.js";
import { distance, falls, percent, price, words } from "./format.js";
import { carryOut, putAway } from "./transaction.js";

const NEEDS = { stop_loss: ["trigger_price"], take_profit: ["trigger_price"], stop_limit: ["trigger_price", "limit_price"],
  limit: ["limit_price"], trailing_stop: ["trailing_distance"] };
const form = $("place"), fields = form.elements;
let known = { markets: [] };

/** What can be placed, and by whom; `placed` is called once an order is on chain. */
export function showTerms(now) {
  known = now;
  const { markets, keeper, user } = known;
  $("terms").disabled = !user || !keeper || !markets.length;
  $("place-hint").hidden = Boolean(user);
  offer(fields.market, markets.map(({ market }) => market));
  offer(fields.order_type, Object.keys(NEEDS).filter((type) => keeper?.executes.includes(type)));
  preview();
}

function offer(select, values) {
  if (values.join() === [...select.options].map(({ value }) => value).join()) return;
  const chosen = select.value;
  select.replaceChildren(...values.map((value) => el("option", { value, textContent: words(value) })));
  if (values.includes(chosen)) select.value = chosen;
}

const needed = () => NEEDS[fields.order_type.value] ?? [];
const market = () => known.markets.find(({ market }) => market === fields.market.value);

function preview() {
  for (const label of form.querySelectorAll("[data-of]")) label.hidden = !needed().includes(label.dataset.of);
  fields.leverage.max = market()?.max_leverage ?? 255;
  say($("preview"), market() ? `The price is ${price(market().price)}. ${outlook()}` : "");
}

function outlook() {
  const { order_type: type, side } = fields, down = falls({ order_type: type.value, side: side.value });
  if (type.value === "trailing_stop") return "The stop follows the price, and never goes back.";
  const at = Number(fields[type.value === "limit" ? "limit_price" : "trigger_price"].value);
  const far = distance(at, market().price);
  if (!at || !Number.isFinite(far)) return `The order fires when the price ${down ? "falls" : "rises"} to its ${type.value === "limit" ? "limit" : "trigger"}.`;
  if (far === 0 || far < 0 !== down) return "The condition is met already: it would be executed at once.";
  return `It has to ${down ? "fall" : "rise"} ${percent(Math.abs(far))} for the order to fire.`;
}

form.addEventListener("input", () => { problem(null); preview(); });

form.addEventListener("submit", (event) => {
  event.preventDefault();
  problem(null);
  const terms = wanted();
  carryOut({
    name: "Place an order",
    sentence: `${words(terms.order_type)} ${terms.side}, ${terms.size} ${terms.market} ×${terms.leverage}. ${outlook()}`,
    prepare: (before) => post("/v1/orders", before?.order_id ? { ...terms, order_id: before.order_id } : terms),
    ended(order, error) {
      if (order) known.placed(order);
      else if (error?.field in NAMES) {
        putAway();
        problem(error);
      }
    },
  });
});

const NAMES = { market: "Market", order_type: "Type", side: "Side", size: "Size", leverage: "Leverage", trigger_price: "Trigger price",
  limit_price: "Limit price", trailing_distance: "Trails by", expires_at: "Expires" };

function wanted() {
  const terms = { user: known.user, market: fields.market.value, order_type: fields.order_type.value, side: fields.side.value,
    size: fields.size.value.trim(), leverage: Number(fields.leverage.value) || 0 };
  for (const name of needed()) terms[name] = fields[name].value.trim();
  // Of 100, as people say it, and a fraction for the API; the keeper says what is wrong with anything else.
  const per100 = Number(terms.trailing_distance);
  if (per100) terms.trailing_distance = String(Number((per100 / 100).toFixed(8)));
  if (fields.expires_at.value) terms.expires_at = Math.floor(known.keeper.chain_time) + Number(fields.expires_at.value);
  return terms;
}

function problem(error) {
  for (const name of Object.keys(NAMES)) if (fields[name].removeAttribute) fields[name].removeAttribute("aria-invalid");
  say($("place-problem"), error ? `${NAMES[error.field]}: ${error.message}` : "");
  const field = error && fields[error.field];
  field?.setAttribute?.("aria-invalid", "true");
  field?.focus?.();
}
