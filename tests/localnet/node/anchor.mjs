// Anchor's TypeScript client with the reference program. Arguments: the RPC URL, the IDL's file. Prints one JSON object.
import { readFileSync } from "node:fs";
import anchor from "@coral-xyz/anchor";

const { AnchorProvider, BN, Program, Wallet, web3 } = anchor;
const connection = new web3.Connection(process.argv[2], "confirmed");
const user = web3.Keypair.generate();
const provider = new AnchorProvider(connection, new Wallet(user), { commitment: "confirmed" });
const program = new Program(JSON.parse(readFileSync(process.argv[3], "utf8")), provider);
const seen = {};

const airdrop = await connection.requestAirdrop(user.publicKey, 10 * web3.LAMPORTS_PER_SOL);
await connection.confirmTransaction({ signature: airdrop, ...(await connection.getLatestBlockhash()) });

// Every address but the wallet's is found by Anchor, from the IDL's seeds.
const price = (units) => new BN(units * 1_000_000);
await program.methods.initializeMarket("SOL", "USDC", price(100), 20, 500, 250).rpc();
const [{ publicKey: market }] = await program.account.market.all();
await program.methods.updateOraclePrice(price(100)).accounts({ market, priceFeed: user.publicKey }).rpc();
await program.methods.createUserAccount(0).rpc();
const [{ publicKey: userAccount }] = await program.account.userAccount.all();
await program.methods.depositCollateral(price(1_000)).accounts({ userAccount }).rpc();

const none = new BN(0);
const place = (id, stop) =>
  program.methods
    .placeOrder(
      new BN(id), { stopLoss: {} }, { long: {} }, price(1), none, price(stop), none, 5, none, none, none, { gtc: {} }, none, none, none,
    )
    .accounts({ market });
const { order } = await place(7, 90).rpcAndKeys().then(({ pubkeys }) => pubkeys);
seen.placed = Object.keys((await program.account.order.fetch(order)).status)[0];

try {
  await program.methods.executeConditionalOrder().accounts({ market, order, executor: user.publicKey }).rpc();
} catch (error) {
  seen.notMet = error.error?.errorCode.code;
}

const filled = new Promise((resolve) => program.addEventListener("orderFilled", (event) => resolve(event)));
await new Promise((resolve) => setTimeout(resolve, 200)); // web3.js subscribes in the background
await program.methods.updateOraclePrice(price(80)).accounts({ market, priceFeed: user.publicKey }).rpc();
await program.methods.executeConditionalOrder().accounts({ market, order, executor: user.publicKey }).rpc();
const event = await filled;
seen.event = [event.order.equals(order), event.price.toNumber()];
seen.filled = Object.keys((await program.account.order.fetch(order)).status)[0];
seen.position = (await program.account.position.fetch(event.position)).size.toNumber();
console.log(JSON.stringify(seen));
process.exit(0);
