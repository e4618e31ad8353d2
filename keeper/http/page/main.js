// What is asked for, how often, and who shows it.

import { $, el, say } from "./dom.js";
import { poll } from "./api.js";
import { watchHealth } from "./head.js";
import { ADDRESS, count, sol } from "./format.js";
import { showMarkets } from "./markets.js";
import { followOrders, redraw } from "./orders.js";
import { showExecutions, showFailures } from "./history.js";

const RESTING = new Set(["open", "triggered", "executing"]);

poll(() => "/v1/markets?levels=60", 2_000, ({ markets }) => showMarkets(markets));
watchHealth(showChecks);
poll(() => "/v1/keeper", 5_000, showKeeper);
const askExecutions = poll(() => "/v1/executions?limit=40", 15_000, showExecutions);
const askFailures = poll(() => "/v1/failures?limit=15", 15_000, showFailures);

let soon;
function somethingEnded() {
  // Many orders end at once; what they have in common is one question.
  soon ??= setTimeout(() => { soon = undefined; askExecutions(); askFailures(); }, 1_000);
}

function filters() {
  const user = $("user").value.trim();
  const isWallet = user === "" || ADDRESS.test(user);
  $("user").setAttribute("aria-invalid", String(!isWallet));
  return isWallet ? { user, market: $("market").value } : null;
}

function refollow() {
  const wanted = filters();
  if (wanted) followOrders(wanted, somethingEnded);
}
$("user").addEventListener("change", refollow);
$("user").addEventListener("search", refollow);
$("market").addEventListener("change", refollow);
refollow();
setInterval(() => document.hidden || redraw(), 10_000);

function showChecks({ checks }) {
  $("checks").replaceChildren(...checks.map((check) => el("li", {},
    el("span", { className: check.ok ? "good" : "bad", textContent: check.ok ? "● " : "▲ " }), check.name,
    el("small", { textContent: check.detail || (check.ok ? "ok" : "failed") }))));
}

function showKeeper(keeper) {
  const of = (wanted) => keeper.orders.filter(({ status }) => wanted(status)).reduce((sum, { orders }) => sum + orders, 0);
  say($("balance"), sol(keeper.balance_lamports));
  say($("resting"), count(of((status) => RESTING.has(status))));
  say($("filled"), count(of((status) => status === "filled")));
  say($("failed"), count(of((status) => status === "failed")));
  say($("about"), `Keeper ${keeper.version} · wallet ${keeper.keeper ?? "none"} · program ${keeper.program}, revision ${keeper.program_revision}`);
}
