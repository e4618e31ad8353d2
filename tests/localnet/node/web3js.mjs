// What a web3.js v1 program does with a validator; every reply passes web3.js's own shape checks.
// Arguments: the RPC URL. Prints one JSON object; the WebSocket is found on the next port, as by default.
import {
  ComputeBudgetProgram,
  Connection,
  Keypair,
  LAMPORTS_PER_SOL,
  PublicKey,
  SendTransactionError,
  SystemProgram,
  Transaction,
  TransactionMessage,
  VersionedTransaction,
  sendAndConfirmTransaction,
} from "@solana/web3.js";

const connection = new Connection(process.argv[2], "confirmed");
const payer = Keypair.generate();
const program = Keypair.generate().publicKey;
const seen = {};

const within = (promise, what) =>
  Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what} came`)), 10_000).unref()),
  ]);
const heard = (subscribe) => new Promise((resolve) => subscribe((...news) => resolve(news)));

seen.version = (await connection.getVersion())["solana-core"];
seen.genesis = await connection.getGenesisHash();
seen.rent = await connection.getMinimumBalanceForRentExemption(183);
const slotNews = heard((tell) => connection.onSlotChange(tell));
const rootNews = heard((tell) => connection.onRootChange(tell));

const airdrop = await connection.requestAirdrop(payer.publicKey, 10 * LAMPORTS_PER_SOL);
const latest = await connection.getLatestBlockhash();
await within(connection.confirmTransaction({ signature: airdrop, ...latest }), "confirmation");
seen.balance = await connection.getBalance(payer.publicKey);

// A legacy transaction that makes an account of `program`, heard of in every way.
const created = Keypair.generate();
const accountNews = heard((tell) =>
  connection.onAccountChange(created.publicKey, tell, { commitment: "processed", encoding: "base64" }),
);
const programNews = heard((tell) =>
  connection.onProgramAccountChange(program, tell, {
    commitment: "confirmed",
    filters: [{ dataSize: 8 }, { memcmp: { offset: 0, bytes: "11111111" } }],
  }),
);
const logNews = heard((tell) => connection.onLogs(payer.publicKey, tell, "processed"));
await new Promise((resolve) => setTimeout(resolve, 100)); // web3.js subscribes in the background
const create = new Transaction().add(
  ComputeBudgetProgram.setComputeUnitLimit({ units: 10_000 }),
  ComputeBudgetProgram.setComputeUnitPrice({ microLamports: 1_000_000 }),
  SystemProgram.createAccount({
    fromPubkey: payer.publicKey,
    newAccountPubkey: created.publicKey,
    lamports: LAMPORTS_PER_SOL,
    space: 8,
    programId: program,
  }),
);
const signature = await within(
  sendAndConfirmTransaction(connection, create, [payer, created]),
  "sendAndConfirmTransaction",
);
const [accountInfo] = await within(accountNews, "account news");
seen.accountNews = [accountInfo.owner.equals(program), accountInfo.data.length, accountInfo.lamports];
const [keyed] = await within(programNews, "program news");
seen.programNews = keyed.accountId.equals(created.publicKey);
const [logs] = await within(logNews, "logs");
seen.logNews = [logs.signature === signature, logs.err, logs.logs.length];
seen.slotNews = typeof (await within(slotNews, "slot"))[0].root;
seen.rootNews = typeof (await within(rootNews, "root"))[0];

const status = (await connection.getSignatureStatuses([signature, "1".repeat(64)])).value;
seen.status = [status[0].err, status[1]];
seen.account = (await connection.getAccountInfo(created.publicKey)).data.length;
seen.several = (await connection.getMultipleAccountsInfo([created.publicKey, program])).map(
  (info) => info && info.lamports,
);
const owned = await connection.getProgramAccounts(program, { filters: [{ dataSize: 8 }] });
seen.owned = owned.map(({ pubkey }) => pubkey.equals(created.publicKey));
const options = { commitment: "confirmed", maxSupportedTransactionVersion: 0 };
const landed = await connection.getTransaction(signature, options);
seen.landed = [landed.meta.fee, landed.meta.err, landed.version];
const parsed = await connection.getParsedTransaction(signature, options);
seen.parsed = parsed.transaction.message.accountKeys.filter((key) => key.signer).length;
seen.history = (await connection.getSignaturesForAddress(created.publicKey)).map(
  (row) => row.signature === signature,
);
seen.blockTime = typeof (await connection.getBlockTime(landed.slot));
seen.epoch = (await connection.getEpochInfo()).epoch;
seen.fees = Array.isArray(await connection.getRecentPrioritizationFees());
seen.valid = (await connection.isBlockhashValid(latest.blockhash)).value;
seen.height = (await connection.getBlockHeight()) <= (await connection.getSlot());

// A versioned one: simulated, refused with its logs, and refused by the chain itself.
const tooMuch = new VersionedTransaction(
  new TransactionMessage({
    payerKey: payer.publicKey,
    recentBlockhash: (await connection.getLatestBlockhash()).blockhash,
    instructions: [
      SystemProgram.transfer({
        fromPubkey: payer.publicKey,
        toPubkey: PublicKey.unique(),
        lamports: 1_000 * LAMPORTS_PER_SOL,
      }),
    ],
  }).compileToV0Message(),
);
seen.fee = (await connection.getFeeForMessage(tooMuch.message)).value;
tooMuch.sign([payer]);
const simulated = await connection.simulateTransaction(tooMuch, {
  innerInstructions: true,
  accounts: { encoding: "base64", addresses: [payer.publicKey.toBase58()] },
});
seen.simulated = [simulated.value.err, simulated.value.unitsConsumed];
const refusal = await connection.sendTransaction(tooMuch).catch((error) => error);
seen.refusal = [refusal instanceof SendTransactionError, refusal.message.includes("custom program error: 0x1"), refusal.logs.length];
const failed = await connection.sendTransaction(tooMuch, { skipPreflight: true });
const confirming = connection.confirmTransaction({ signature: failed, ...latest });
// Heard over the WebSocket, web3.js throws the error itself; asked for by polling, it returns it.
seen.failed = await within(confirming.then(({ value }) => value.err, (error) => error), "failure");

console.log(JSON.stringify(seen));
process.exit(0);
