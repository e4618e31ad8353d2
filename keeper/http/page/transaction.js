// One transaction at a time on its way: prepared by the keeper, signed in the wallet, relayed by the keeper, on chain.

import { $, el, say } from "./dom.js";
import { changes, post, sentence, unanswered } from "./api.js";
import { tone, words } from "./format.js";
import { session, sign } from "./standard.js";

const STEPS = [["prepare", "Prepared by the keeper"], ["sign", "Signed in your wallet"], ["relay", "Checked and relayed"], ["chain", "On chain"]];
const WAITING = {
  prepare: "The keeper makes the transaction …", sign: "Your wallet asks you to sign …",
  relay: "The keeper checks what was signed, and sends it …", chain: "Waiting for the chain …",
};
const MARKS = { done: "✓", doing: "…", failed: "✕", todo: "·" };
const SAID = { done: "done", doing: "under way", failed: "failed", todo: "not yet" };
const MAYBE_SENT = " The transaction may be on its way: trying again sends the same bytes, and does nothing twice.";
const TIMES_ANEW = 2, TIMES_SENT = 4, RESEND_MS = 1_000, CHAIN_WITHIN_MS = 180_000;
const MAYBE_DONE = new Set(["order_exists", "order_not_pending"]);
const UNDER_WAY = new Set(["prepared", "submitted", "cancelling"]);

const title = el("h2", { id: "transaction-title" });
const close = el("button", { "aria-label": "Close", textContent: "✕" });
const about = el("p");
const list = el("ol", { className: "steps" });
const outcome = el("p", { id: "outcome", role: "status" });
const proof = el("p", { className: "more" });
const again = el("button", { type: "button", className: "main", textContent: "Try again", hidden: true });
const dialog = el("dialog", { id: "transaction", "aria-labelledby": "transaction-title" },
  el("form", { method: "dialog" }, title, close), about, list, outcome, proof, again);
document.body.append(dialog);
// Whoever closes it before the relay has changed their mind: what the wallet signs after that goes nowhere.
dialog.addEventListener("close", () => { if (!dialog.open) current = null; });

let chain = "solana:localnet";
let current = null;

/** The Wallet Standard's name of the keeper's cluster. */
export function signOn(name) {
  chain = name;
}

/** Take a transaction all the way, in a dialog that tells how far it is.
 *
 * `prepare(before)` asks the keeper for it, as `/v1/orders` answers; `before` is what it answered the last time, which can
 * no longer land. `ended` is called with the order as it is once it is on chain, and with an error that ends it before.
 */
export function carryOut({ name, sentence: text, prepare, ended = () => {} }) {
  current = { prepare, ended, user: session()?.account.address };
  say(title, name);
  say(about, text);
  say(proof, "");
  if (!dialog.open) dialog.showModal();
  return go(current);
}

again.addEventListener("click", () => go(current));

async function go(task) {
  let step = "prepare";
  const enter = (name) => {
    step = name;
    if (task === current) show(name, "doing", WAITING[name]);
  };
  try {
    for (let anew = 0; ; anew += 1) {
      try {
        await toTheChain(task, enter);
        break;
      } catch (error) {
        if (error?.code !== "blockhash_expired") throw error;
        startOver(task);
        if (anew === TIMES_ANEW) throw error;
      }
    }
    enter("chain");
    const order = await landed(task.relayed.order);
    if (task === current) show("chain", fits(task.relayed, order) ? "done" : "failed", `The order is ${words(order.status)}: ${order.status_reason}`, tone(order.status));
    task.ended(order);
  } catch (error) {
    if (task === current) {
      show(step, "failed", told(step, error), "bad");
      again.hidden = false;
      again.focus();
    }
    task.ended(null, error);
  }
}

/** Close the dialog, for what is said elsewhere. */
export function putAway() {
  dialog.close();
}

function stillWanted(task) {
  // The event of its closing comes a little after it was closed, and a wallet may have signed in between.
  if (task !== current || !dialog.open) throw new Error("It was closed before it was relayed.");
  if (session()?.account.address !== task.user) throw new Error("The wallet has another account now; close this and begin anew.");
}

/** What went wrong, for people. A wallet throws what it likes. */
function told(step, error) {
  if (step === "sign") return `The wallet did not sign: ${error?.message ?? error}`;
  return sentence(error) + (step === "relay" && unanswered(error) ? MAYBE_SENT : "");
}

/** Each step once: what is done already when it is tried again is not done again. */
async function toTheChain(task, enter) {
  // A second is left for the wallet's user, who has a minute in all.
  if (task.prepared && !task.signed && task.prepared.sign_before < Date.now() / 1_000 + 1) startOver(task);
  if (!task.prepared) {
    stillWanted(task);
    enter("prepare");
    try {
      task.prepared = await task.prepare(task.before);
    } catch (error) {
      if (!task.before || !MAYBE_DONE.has(error?.code)) throw error;
      // Its wallet may have sent the first one by itself: the chain says.
      task.relayed = task.before;
    }
  }
  if (!task.signed && !task.relayed) {
    stillWanted(task);
    enter("sign");
    task.signed = await sign(bytesOf(task.prepared.transaction), chain);
  }
  if (!task.relayed) {
    stillWanted(task);
    enter("relay");
    task.relayed = await relay(task);
    if (task === current) proof.replaceChildren("Signature ", el("code", { textContent: task.relayed.signature }));
  }
}

function startOver(task) {
  // What was prepared is told, so that an order gets the same address again: one that landed after all is not made twice.
  task.before = task.prepared;
  task.prepared = task.signed = undefined;
}

/** Sent again when nothing is known of it, or the chain could not be asked: the same bytes get the same answer. */
async function relay(task) {
  const body = { id: task.prepared.id, signed_transaction: base64Of(task.signed) };
  for (let sent = 1; ; sent += 1) {
    try {
      return await post("/v1/orders/execute", body);
    } catch (error) {
      const passing = unanswered(error) || error.status >= 500 || error.status === 429;
      // What was refused as it is would be refused again: it has to be signed anew.
      if (!passing) task.signed = undefined;
      if (!passing || sent === TIMES_SENT) throw error;
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs ?? RESEND_MS));
    }
  }
}

async function landed(address) {
  const until = Date.now() + CHAIN_WITHIN_MS;
  for await (const order of changes(address)) {
    if (order && !UNDER_WAY.has(order.status)) return order;
    if (Date.now() > until) break;
  }
  throw new Error("The chain takes long; the keeper goes on, and the list of orders shows what becomes of it.");
}

const fits = ({ kind }, { status }) => (kind === "cancel" ? status === "cancelled" : !["rejected", "dropped", "failed"].includes(status));

function show(at, how, text, className = "") {
  const n = STEPS.findIndex(([name]) => name === at);
  list.replaceChildren(...STEPS.map(([, label], i) => {
    const state = i < n ? "done" : i > n ? "todo" : how;
    return el("li", { className: state }, el("span", { "aria-hidden": "true", textContent: MARKS[state] }), label,
      el("span", { className: "heard", textContent: `: ${SAID[state]}` }));
  }));
  again.hidden = true;
  say(outcome, text, className);
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const base64Of = (bytes) => btoa(String.fromCharCode(...bytes));
