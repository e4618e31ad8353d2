// What stands above each page: how the keeper is, and the theme's button.

import { $, say } from "./dom.js";
import { poll } from "./api.js";

/** Keep `#health` true; `show` gets each report. */
export function watchHealth(show = () => {}) {
  poll(() => "/healthz", 5_000, (health) => {
    const failing = health.checks.filter((check) => !check.ok).map((check) => check.name);
    const well = health.ready && health.live;
    say($("health"), well ? "ready" : `not ready: ${failing.join(", ")}`, `pill ${well ? "good" : "bad"}`);
    show(health);
  });
}

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});
