// Words and numbers for people.

const TONES = {
  filled: "good", executed: "good", open: "", prepared: "over", submitted: "busy", triggered: "busy",
  executing: "busy", cancelling: "warn", cancelled: "over", expired: "over", dropped: "over",
  failed: "bad", rejected: "bad", refused: "bad", no_position: "bad", misconfigured: "bad", cannot_pay: "bad",
  transient: "warn", lost_race: "warn", price_moved_back: "warn", price_stale: "warn", market_paused: "warn",
};

export const ADDRESS = /^[1-9A-HJ-NP-Za-km-z]{32,44}$/;
export const tone = (word) => TONES[word] ?? "";
export const words = (name) => (name ?? "").replaceAll("_", " ");
export const short = (text) => (text && text.length > 12 ? `${text.slice(0, 4)}…${text.slice(-4)}` : text ?? "");

export function price(text) {
  if (text === null || text === undefined) return "–";
  const number = Number(text);
  return number.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: number < 10 ? 6 : 2 });
}

export const amount = (text) => Number(text).toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
export const percent = (fraction) => `${(Number(fraction) * 100).toFixed(2)} %`;
export const count = (n) => n.toLocaleString("en");
export const sol = (lamports) => (lamports === null ? "–" : `${(lamports / 1e9).toFixed(3)} SOL`);

export function ago(seconds) {
  const s = Math.max(0, seconds);
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export const since = (unix) => `${ago(Date.now() / 1000 - unix)} ago`;
export const moment = (unix) => new Date(unix * 1_000).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const milliseconds = (ms) => (ms === null ? "–" : ms < 10_000 ? `${count(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
export const trigger = (order) => order.trigger_price ?? order.limit_price ?? null;

/** Whether a falling price meets the order, or else a rising one: the table of `keeper/triggers/conditions.py`. */
export const falls = ({ order_type, side }) => (order_type === "take_profit") !== (side === "long");

/** How far a price is away from a trigger, as a fraction of the price; below 0 when the trigger lies below it. */
export const distance = (triggerPrice, now) => (Number(triggerPrice) - Number(now)) / Number(now);
