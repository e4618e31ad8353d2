// What a program with @triton-one/yellowstone-grpc does. Arguments: the RPC URL, the gRPC URL, a program's id, the first
// bytes of its orders in base64. Prints one JSON object.
import Yellowstone, { CommitmentLevel } from "@triton-one/yellowstone-grpc";

const Client = Yellowstone.default ?? Yellowstone;
const [, , , url, program, prefix] = process.argv;
const seen = {};

const client = new Client(url, undefined, undefined);
await client.connect();
seen.version = JSON.parse((await client.getVersion()).version).package;
seen.pong = (await client.ping(7)).count;
seen.slot = Number((await client.getSlot(CommitmentLevel.PROCESSED)).slot) > 0;
seen.blockhash = (await client.getLatestBlockhash(CommitmentLevel.FINALIZED)).blockhash.length > 30;

const empty = { accounts: {}, slots: {}, transactions: {}, transactionsStatus: {}, blocks: {}, blocksMeta: {}, entry: {}, accountsDataSlice: [] };
const wanted = {
  ...empty,
  commitment: CommitmentLevel.PROCESSED,
  slots: { slots: { filterByCommitment: true } },
  accounts: {
    orders: { account: [], owner: [program], filters: [{ memcmp: { offset: "0", base64: prefix } }] },
  },
};

// Reads a stream until `done` says so of an update; what it says is the result. On a connection of its own: the client's
// HTTP/2 library ends one on which a stream was left unread (hyperium/h2#939).
async function read(request, done) {
  const client = new Client(url, undefined, undefined);
  await client.connect();
  const stream = await client.subscribe();
  await new Promise((resolve, reject) => stream.write(request, (error) => (error ? reject(error) : resolve())));
  try {
    return await new Promise((resolve, reject) => {
      stream.on("error", reject);
      stream.on("data", (update) => {
        const said = done(update, stream);
        if (said !== undefined) resolve(said);
      });
    });
  } finally {
    stream.destroy();
  }
}

seen.account = await read(wanted, (update) => {
  const account = update.account?.account;
  if (account) return [update.filters, account.data.length, Number(account.lamports), account.pubkey.length];
});
const last = await read(wanted, (update) => (update.slot ? Number(update.slot.slot) : undefined));
seen.again = await read({ ...wanted, fromSlot: String(last - 3) }, (update) =>
  update.slot ? Number(update.slot.slot) - last : undefined,
);
seen.ping = await read(wanted, (update, stream) => {
  if (update.pong) return update.pong.id;
  if (update.slot) stream.write({ ...empty, ping: { id: 3 } });
});
const refused = (request) => read(request, () => undefined).catch((error) => String(error.cause?.message ?? error));
seen.tooOld = await refused({ ...wanted, fromSlot: "1" });
seen.unserved = await refused({ ...empty, transactions: { all: { accountInclude: [], accountExclude: [], accountRequired: [] } } });
console.log(JSON.stringify(seen));
process.exit(0);
