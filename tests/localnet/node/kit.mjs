// What a program with @solana/kit does. Arguments: the RPC URL, the WebSocket URL. Prints one JSON object.
import {
  address,
  airdropFactory,
  createSolanaRpc,
  createSolanaRpcSubscriptions,
  generateKeyPairSigner,
  lamports,
} from "@solana/kit";

const rpc = createSolanaRpc(process.argv[2]);
const rpcSubscriptions = createSolanaRpcSubscriptions(process.argv[3]);
const seen = {};
const stop = new AbortController();
setTimeout(() => stop.abort(), 20_000).unref();

// Waits for the airdrop by its signature's subscription and the block height, as kit's own helpers do.
const wallet = await generateKeyPairSigner();
const airdrop = airdropFactory({ rpc, rpcSubscriptions });
const signature = await airdrop({ recipientAddress: wallet.address, lamports: lamports(2_000_000_000n), commitment: "confirmed" });
seen.balance = Number((await rpc.getBalance(wallet.address, { commitment: "confirmed" }).send()).value);

const version = await rpc.getVersion().send();
seen.version = [version["solana-core"], typeof version["feature-set"]];
const transaction = await rpc
  .getTransaction(signature, { commitment: "confirmed", encoding: "jsonParsed", maxSupportedTransactionVersion: 0 })
  .send();
seen.tokens = [transaction.meta.preTokenBalances, transaction.meta.postTokenBalances];
const block = await rpc
  .getBlock(transaction.slot, { commitment: "confirmed", transactionDetails: "signatures", maxSupportedTransactionVersion: 0 })
  .send();
seen.block = block.signatures.includes(signature);
seen.schedule = Number((await rpc.getEpochSchedule().send()).slotsPerEpoch);
seen.supply = (await rpc.getSupply().send()).value.nonCirculating.toString();
seen.votes = (await rpc.getVoteAccounts().send()).current.length;
seen.nodes = (await rpc.getClusterNodes().send()).length;
seen.samples = Array.isArray(await rpc.getRecentPerformanceSamples(1).send());
const clock = await rpc.getAccountInfo(address("SysvarC1ock11111111111111111111111111111111"), { encoding: "jsonParsed" }).send();
seen.clock = clock.value.data.parsed.type;
seen.rentEpoch = (await rpc.getAccountInfo(wallet.address, { commitment: "confirmed", encoding: "base64" }).send()).value.rentEpoch.toString();

const heard = new Set();
for await (const update of await rpcSubscriptions.slotsUpdatesNotifications().subscribe({ abortSignal: stop.signal })) {
  heard.add(update.type);
  if (heard.size === 5) break;
}
seen.updates = [...heard].sort();
console.log(JSON.stringify(seen));
process.exit(0);
