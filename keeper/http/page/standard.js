// Browser wallets by the Wallet Standard: how they and a page find each other, connecting, signing.
// Source: @wallet-standard/base and /app 1.1, @solana/wallet-standard-features 1.3. What a wallet says of itself is a
// stranger's text.

const CONNECT = "standard:connect", DISCONNECT = "standard:disconnect", EVENTS = "standard:events";
const SIGN = "solana:signTransaction";
const MOST_WALLETS = 20;

const found = new Set();
let onChange = () => {};
let connected = null;

/** The wallets of this browser that can sign a transaction without sending it: the keeper is who lands it. */
export const wallets = () => [...found];

/** `{ wallet, account }` while one is connected; its account's `address` is who signs. */
export const session = () => connected;

function usable({ features, chains }) {
  return CONNECT in features && features[SIGN].supportedTransactionVersions.includes("legacy") &&
    chains.some((chain) => chain.startsWith("solana:"));
}

/** False as well for what is no wallet at all: whatever runs in the page can register something. */
function fits(wallet) {
  try {
    return usable(wallet);
  } catch {
    return false;
  }
}

const api = Object.freeze({
  register(...registered) {
    for (const wallet of registered) if (found.size < MOST_WALLETS && fits(wallet)) found.add(wallet);
    onChange();
    return () => {
      for (const wallet of registered) found.delete(wallet);
      if (connected && !found.has(connected.wallet)) leave();
      onChange();
    };
  },
});

/** Begin to listen; `changed` is called when a wallet comes, goes, connects or changes its account. */
export function findWallets(changed) {
  onChange = changed;
  // Whichever of the two is loaded first announces itself, and the other one answers.
  addEventListener("wallet-standard:register-wallet", ({ detail: callback }) => callback(api));
  dispatchEvent(Object.assign(new Event("wallet-standard:app-ready"), { detail: api }));
  onChange();
}

/** Connect; an Error with the wallet's own words when it or its user does not want to. `silent`: without asking. */
export async function connect(wallet, { silent = false } = {}) {
  const { accounts } = await wallet.features[CONNECT].connect(silent ? { silent } : undefined);
  if (!adopt(wallet, accounts)) {
    if (silent) return;
    throw new Error("The wallet shared no account that can sign Solana transactions.");
  }
  const off = wallet.features[EVENTS]?.on("change", ({ accounts: now }) => {
    if (!now || connected?.wallet !== wallet) return;
    if (!adopt(wallet, now)) leave();
    onChange();
  });
  connected.off = () => off?.();
  localStorage.setItem("wallet", wallet.name);
  onChange();
}

function adopt(wallet, accounts) {
  const account = accounts.find(({ features }) => features.includes(SIGN));
  if (account) connected = { ...(connected?.wallet === wallet ? connected : {}), wallet, account };
  return Boolean(account);
}

function leave() {
  connected?.off?.();
  connected = null;
}

/** Forget the wallet, and let it forget this page if it can. */
export async function disconnect() {
  const { wallet } = connected;
  leave();
  localStorage.removeItem("wallet");
  onChange();
  await wallet.features[DISCONNECT]?.disconnect();
}

/** The signed bytes of a transaction's bytes; an Error with the wallet's own words when it does not sign.
 *
 * `chain` is the Wallet Standard's name of the cluster: a wallet that shows what a transaction does asks there.
 */
export async function sign(transaction, chain) {
  if (!connected) throw new Error("No wallet is connected any more.");
  const { wallet, account } = connected;
  const input = { account, transaction, ...(account.chains.includes(chain) && { chain }) };
  const [output] = await wallet.features[SIGN].signTransaction(input);
  if (!(output?.signedTransaction instanceof Uint8Array)) throw new Error("The wallet gave no signed transaction back.");
  return output.signedTransaction;
}
