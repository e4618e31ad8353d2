// A wallet's page: which wallet, what is asked for and how often, and who shows it.

import { $, el, row, emptyRow, say } from "./dom.js";
import { follow, get, poll, post, sentence } from "./api.js";
import { ADDRESS, amount, moment, price, short, tone, trigger, words } from "./format.js";
import { watchHealth } from "./head.js";
import { showOpen } from "./ladder.js";
import { orderButton } from "./orders.js";
import { change, showTerms } from "./placing.js";
import { connect, disconnect, findWallets, session, wallets } from "./standard.js";
import { carryOut, signOn } from "./transaction.js";

/** The beginnings of the public clusters' genesis hashes. */
const CLUSTERS = { "5eykt4Us": "mainnet", EtWTRABZ: "devnet", "4uhcVJyU": "testnet" };

const CACHED_MS = 2_500;

let wallet = "", stop = () => {}, keeper = null, markets = [], open = [], complete = true, positions = [], ended = [], next = null;

watchHealth();
poll(() => "/v1/keeper", 10_000, (found) => {
  keeper = found;
  signOn(`solana:${CLUSTERS[keeper.genesis?.slice(0, 8)] ?? "localnet"}`);
  say($("about"), `Keeper ${keeper.version} · program ${keeper.program}, revision ${keeper.program_revision}`);
  draw();
});
const of = (status) => () => wallet && `/v1/orders?user=${wallet}&status=${status}&limit=200`;
const askOpen = poll(of("active"), 30_000, (page) => { [open, complete] = [page.orders, page.next === null]; draw(); });
// The sentence of an order that rests tells the price: it is asked for with each.
const askMarkets = poll(() => "/v1/markets?levels=0", 3_000, (found) => { markets = found.markets; draw(); askOpen(); });
const askEnded = poll(of("history"), 60_000, (page) => {
  const listed = new Set(page.orders.map(({ order }) => order));
  // What was paged to stays.
  if (!ended.length) next = page.next;
  ended = [...page.orders, ...ended.filter(({ order }) => !listed.has(order))];
  drawEnded();
});

// These cost the keeper's node a call each, and are kept for two seconds there.
const askPositions = poll(() => wallet && `/v1/wallets/${wallet}/positions`, 20_000, (page) => { positions = page.positions; draw(); });
const askAccount = poll(() => wallet && `/v1/wallets/${wallet}/account`, 20_000, showMargin);
const askMargin = () => { askPositions(); askAccount(); };

let soon, later;
function news() {
  // Many changes at once are one question.
  soon ??= setTimeout(() => { soon = undefined; askMarkets(); askEnded(); askMargin(); }, 200);
  later ??= setTimeout(() => { later = undefined; askMargin(); }, CACHED_MS);
}

function look(address) {
  stop();
  [wallet, open, positions, ended, next] = [address, [], [], [], null];
  showMargin(null);
  $("address").value = address;
  say($("stream"), "", "pill quiet");
  if (location.hash.slice(1) !== address) history.replaceState(null, "", `#${address}`);
  if (address) {
    const state = (text, className) => say($("stream"), text, `pill quiet ${className}`);
    stop = follow({ user: address }, { snapshot: news, order: news, state });
  }
  draw();
  drawEnded();
  askOpen();
  askEnded();
  askMargin();
}

function lookAtHash() {
  const address = location.hash.slice(1);
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  if (ADDRESS.test(address)) look(address);
  // A place in the page: the reader is there, and the address stays the wallet's.
  else history.replaceState(null, "", `#${wallet}`);
}
addEventListener("hashchange", lookAtHash);

$("look").addEventListener("submit", (event) => {
  event.preventDefault();
  const address = $("address").value.trim();
  const isWallet = address === "" || ADDRESS.test(address);
  $("address").setAttribute("aria-invalid", String(!isWallet));
  if (isWallet) look(address);
});

function draw() {
  const user = session()?.account.address;
  showOpen({ wallet, orders: open, complete, positions, markets, executes: keeper?.executes, acts: user === wallet ? { change, cancel } : null });
  $("cancel-all").hidden = user !== wallet || open.length < 2;
  showTerms({ markets, keeper, user, placed: () => (wallet === user ? news() : look(user)) });
}

function showMargin(account) {
  $("no-account").hidden = account?.exists !== false;
  $("margin").hidden = !account?.exists;
  if (!account?.exists) return;
  say($("collateral"), amount(account.collateral_quote));
  say($("available"), amount(account.available_margin_quote));
  say($("needed"), amount(account.initial_margin_quote));
  say($("kept"), amount(account.maintenance_margin_quote));
  say($("held"), `${account.positions} of ${account.max_positions}`);
}

function cancel(order) {
  carryOut({
    name: "Cancel an order",
    sentence: `${words(order.order_type)} ${order.side}, ${order.size} ${order.market ?? ""}, trigger ${price(trigger(order))}. The keeper executes it no more once the signed cancel is with it.`,
    prepare: () => post(`/v1/orders/${order.order}/cancel`, {}),
    ended: news,
  });
}

$("cancel-all").addEventListener("click", function cancelAll() {
  const user = wallet;
  let left = false;
  carryOut({
    name: "Cancel all orders",
    sentence: "Every open order of this wallet, as many as fit into one transaction: all of them, or none.",
    async prepare() {
      const { transactions, more } = await post("/v1/orders/cancel-all", { user });
      if (!transactions.length) throw new Error("No order is left to cancel.");
      left = more || transactions.length > 1;
      return transactions[0];
    },
    ended(order) {
      news();
      if (left && order?.status === "cancelled") cancelAll();
    },
  });
});

function drawEnded() {
  const rows = ended.map((order) => row([
    ["Status", el("span", { className: `pill ${tone(order.status)}`, textContent: words(order.status) }), "nowrap"],
    ["Market", order.market ?? "?", "nowrap"],
    ["Order", orderButton(order.order, `${words(order.order_type)} ${order.side}`), "nowrap"],
    ["Size", `${order.size} ×${order.leverage}`, "num"],
    ["Trigger", price(trigger(order)), "num"],
    ["Why", order.status_reason, "reason"],
    ["When", moment(order.updated_at), "num"],
  ]));
  $("ended").tBodies[0].replaceChildren(...(rows.length ? rows : [emptyRow(7, wallet ? "Nothing has ended yet." : "No wallet is shown.")]));
  $("older").hidden = !next;
}

$("older").addEventListener("click", async () => {
  const of = wallet;
  const page = await get(next).catch((error) => say($("trouble"), sentence(error)));
  if (!page || of !== wallet) return;
  [ended, next] = [[...ended, ...page.orders], page.next];
  drawEnded();
});

// --- the browser's wallets

let shownFor = null, tried = false, comingBack = false;

function drawConnection() {
  const address = session()?.account.address ?? null;
  if (address !== shownFor) {
    shownFor = address;
    // Who comes back by a link to another wallet goes on looking at that one.
    if (address && !(comingBack && wallet)) look(address);
  }
  const button = (text, act) => el("button", { type: "button", className: "text", textContent: text, onclick: () => attempt(act) });
  const parts = session()
    ? [el("span", { className: "pill good", textContent: session().wallet.name }), el("code", { title: address, textContent: short(address) }),
      button("Disconnect", disconnect)]
    : wallets().map((found) => button(`Connect ${found.name}`, () => connect(found)));
  $("connection").replaceChildren(...(parts.length ? parts : [el("span", { className: "empty", textContent: "No browser wallet was found: orders can be looked at by address." })]));
  draw();
}

async function attempt(act) {
  say($("connection-trouble"), "");
  try {
    await act();
  } catch (error) {
    say($("connection-trouble"), `The wallet is not connected: ${error.message}`);
  }
}

lookAtHash();
drawEnded();
findWallets(() => {
  drawConnection();
  const known = wallets().find(({ name }) => name === localStorage.getItem("wallet"));
  if (!known || session() || tried) return;
  tried = comingBack = true;
  connect(known, { silent: true }).catch(() => {}).finally(() => { comingBack = false; });
});
