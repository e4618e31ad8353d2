// The form for a new order, or for other terms of one: what its type needs, what it would do at this price, and what the
// keeper says is wrong.

import { $, el, say } from "./dom.js";
import { post } from "./api.js";
import { distance, falls, percent, price, words } from "./format.js";
import { carryOut, putAway } from "./transaction.js";

const NEEDS = { stop_loss: ["trigger_price"], take_profit: ["trigger_price"], stop_limit: ["trigger_price", "limit_price"],
  limit: ["limit_price"], trailing_stop: ["trailing_distance"] };
const form = $("place"), fields = form.elements;
let known = { markets: [] }, changing = null;

/** What can be placed, and by whom; `placed` is called once an order is on chain. */
export function showTerms(now) {
  known = now;
  const { markets, keeper, user } = known;
  $("terms").disabled = !user || !keeper || !markets.length;
  $("place-hint").hidden = Boolean(user);
  if (changing && changing.user !== user) keep();
  offer(fields.market, markets.map(({ market }) => market));
  offer(fields.order_type, Object.keys(NEEDS).filter((type) => keeper?.executes.includes(type)));
  preview();
}

/** Ask for other terms of an order. One transaction ends it and places the new one in its stead, or does neither. */
export function change(order) {
  changing = order;
  for (const name of ["market", "order_type", "side"]) fields[name].value = order[name];
  for (const name of ["size", "leverage", "trigger_price", "limit_price"]) fields[name].value = order[name] ?? "";
  fields.trailing_distance.value = order.trailing_distance ? Number((order.trailing_distance * 100).toFixed(6)) : "";
  fields.expires_at.value = "";
  dress();
  fields[needed()[0]].focus();
}

function dress() {
  say($("place-title"), changing ? "Change an order" : "Place an order");
  say($("submit"), changing ? "Change with the wallet" : "Place with the wallet");
  // An expiry is in seconds from now: as it is, unless another one is chosen.
  const [asItIs, never] = fields.expires_at.options;
  asItIs.textContent = changing ? "as it is" : "never";
  never.hidden = !changing;
  for (const field of [fields.market, fields.order_type, ...fields.side]) field.disabled = Boolean(changing);
  $("keep").hidden = !changing;
  problem(null);
  preview();
}

function keep() {
  changing = null;
  fields.expires_at.value = "";
  dress();
}
$("keep").addEventListener("click", keep);

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
  const terms = wanted(), old = changing, other = old ? differences(terms, old) : terms;
  if (!Object.keys(other).length) {
    problem({ field: needed()[0], message: "Nothing is different yet." });
    return;
  }
  const path = old ? `/v1/orders/${old.order}/amend` : "/v1/orders";
  carryOut({
    name: old ? "Change an order" : "Place an order",
    sentence: `${words(terms.order_type)} ${terms.side}, ${terms.size} ${terms.market} ×${terms.leverage}. ${outlook()}`,
    prepare: (before) => post(path, before?.order_id ? { ...other, order_id: before.order_id } : other),
    ended(order, error) {
      if (order) {
        known.placed(order);
        if (changing === old) keep();
      }
      if (error?.field in NAMES) {
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
  const lasts = fields.expires_at.value;
  if (lasts) terms.expires_at = lasts === "0" ? 0 : Math.floor(known.keeper.chain_time) + Number(lasts);
  return terms;
}

const differences = (terms, order) => Object.fromEntries(Object.entries(terms).filter(([name, value]) =>
  !["user", "market", "order_type", "side"].includes(name) && (Number.isNaN(Number(value)) || Number(value) !== Number(order[name]))));

function problem(error) {
  for (const name of Object.keys(NAMES)) if (fields[name].removeAttribute) fields[name].removeAttribute("aria-invalid");
  say($("place-problem"), error ? `${NAMES[error.field]}: ${error.message}` : "");
  const field = error && fields[error.field];
  field?.setAttribute?.("aria-invalid", "true");
  field?.focus?.();
}
