// What a web3.js program with the SPL token library does. Arguments: the RPC URL. Prints one JSON object.
import { Connection, Keypair, LAMPORTS_PER_SOL, SystemProgram, Transaction, sendAndConfirmTransaction } from "@solana/web3.js";
import * as spl from "@solana/spl-token";

const url = process.argv[2];
const connection = new Connection(url, "confirmed");
const payer = Keypair.generate();
const other = Keypair.generate();
const seen = {};

const airdrop = await connection.requestAirdrop(payer.publicKey, 10 * LAMPORTS_PER_SOL);
await connection.confirmTransaction({ signature: airdrop, ...(await connection.getLatestBlockhash()) });

const mint = await spl.createMint(connection, payer, payer.publicKey, null, 6);
const ours = await spl.getOrCreateAssociatedTokenAccount(connection, payer, mint, payer.publicKey);
const theirs = await spl.getOrCreateAssociatedTokenAccount(connection, payer, mint, other.publicKey);
await spl.mintTo(connection, payer, mint, ours.address, payer, 1_500_000n);
const moved = await spl.transferChecked(connection, payer, ours.address, mint, theirs.address, payer, 250_000n, 6);

const landed = await connection.getParsedTransaction(moved);
const amounts = (balances) => Object.fromEntries(balances.map((b) => [b.owner === other.publicKey.toBase58() ? "theirs" : "ours", b.uiTokenAmount.uiAmountString]));
seen.before = amounts(landed.meta.preTokenBalances);
seen.after = amounts(landed.meta.postTokenBalances);

seen.balance = (await connection.getTokenAccountBalance(ours.address)).value.uiAmount;
seen.supply = (await connection.getTokenSupply(mint)).value.amount;
seen.largest = (await connection.getTokenLargestAccounts(mint)).value.map((account) => account.amount);
seen.byMint = (await connection.getTokenAccountsByOwner(payer.publicKey, { mint })).value.length;
const parsed = (await connection.getParsedTokenAccountsByOwner(payer.publicKey, { programId: spl.TOKEN_PROGRAM_ID })).value;
seen.parsed = parsed.map(({ account }) => [account.data.program, account.data.parsed.info.tokenAmount.uiAmountString]);
seen.mint = (await connection.getParsedAccountInfo(mint)).value.data.parsed.info.decimals;

const wrapped = await spl.createWrappedNativeAccount(connection, payer, payer.publicKey, LAMPORTS_PER_SOL);
const wrap = (await connection.getParsedAccountInfo(wrapped)).value.data.parsed.info;
seen.wrapped = [wrap.isNative, wrap.tokenAmount.uiAmountString, wrap.rentExemptReserve.amount];
await spl.closeAccount(connection, payer, wrapped, payer.publicKey, payer);

// The block that it landed in.
const block = await connection.getBlock(landed.slot, { maxSupportedTransactionVersion: 0 });
seen.block = block.transactions.map(({ transaction }) => transaction.signatures[0]).includes(moved);
seen.blocks = (await connection.getBlocks(landed.slot, landed.slot))[0] === landed.slot;

// What fails without a preflight is an error that says what failed, as with a validator.
const tooMuch = new Transaction().add(
  SystemProgram.transfer({ fromPubkey: payer.publicKey, toPubkey: other.publicKey, lamports: 1_000_000 * LAMPORTS_PER_SOL }),
);
try {
  await sendAndConfirmTransaction(connection, tooMuch, [payer], { skipPreflight: true });
} catch (error) {
  seen.failure = error.constructor.name;
}
console.log(JSON.stringify(seen));
process.exit(0);
