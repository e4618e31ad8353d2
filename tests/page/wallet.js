// A small browser wallet by the Wallet Standard, with a real Ed25519 key: its seed is hex.
// What its user would do is `window.testWallet.mood`: "sign", "refuse", "alter" (sign something else), "wait".
(seed, address, name) => {
  const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
  const pkcs8 = bytes(`302e020100300506032b657004220420${seed}`);
  const key = crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
  const chains = ["solana:mainnet", "solana:localnet"];
  const account = { address, publicKey: new Uint8Array(32), chains, features: ["solana:signTransaction"] };
  const listeners = new Set();
  const user = { mood: "sign", asked: [], connects: [], go: () => {} };
  window.testWallet = user;

  async function signOne({ account: who, transaction, chain }) {
    user.asked.push({ address: who.address, chain });
    if (user.mood === "refuse") throw new Error("User rejected the request.<img src=x onerror=alert(1)>");
    const signed = new Uint8Array(transaction);
    // The message ends with the instruction's arguments, and those of an order hold its expiry, size and prices.
    if (user.mood === "alter") signed[signed.length - 40] ^= 1;
    signed.set(new Uint8Array(await crypto.subtle.sign("Ed25519", await key, signed.slice(65))), 1);
    user.signed = btoa(String.fromCharCode(...signed));
    if (user.mood === "wait") await new Promise((resolve) => { user.go = resolve; });
    return { signedTransaction: signed };
  }

  const wallet = {
    version: "1.0.0", name, icon: "data:image/svg+xml;base64,PHN2Zy8+", chains, accounts: [],
    features: {
      "standard:connect": { version: "1.0.0", async connect(input) {
        user.connects.push(Boolean(input?.silent));
        if (user.mood === "refuse") throw new Error("User rejected the request.");
        wallet.accounts = [account];
        return { accounts: wallet.accounts };
      } },
      "standard:disconnect": { version: "1.0.0", async disconnect() { wallet.accounts = []; } },
      "standard:events": { version: "1.0.0", on(event, listener) { listeners.add(listener); return () => listeners.delete(listener); } },
      "solana:signTransaction": { version: "1.0.0", supportedTransactionVersions: ["legacy", 0],
        signTransaction: (...inputs) => Promise.all(inputs.map(signOne)) },
    },
  };
  user.changeAccounts = (accounts) => listeners.forEach((listener) => listener({ accounts }));

  const callback = ({ register }) => register(wallet);
  class RegisterWallet extends Event {
    get detail() { return callback; }
  }
  dispatchEvent(new RegisterWallet("wallet-standard:register-wallet"));
  addEventListener("wallet-standard:app-ready", ({ detail: api }) => callback(api));
}
