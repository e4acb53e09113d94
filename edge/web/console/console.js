// The console: which view is shown, its colours, its key.

import { $, askForKey } from "./page.js";
import * as live from "./live.js";
import * as sessions from "./sessions.js";
import * as health from "./health.js";

const VIEWS = { live, sessions, health };
const THEME = "edgescribe.theme";
let current = null;

function route() {
  const [name, argument] = location.hash.slice(1).split("/");
  const chosen = Object.hasOwn(VIEWS, name) ? name : "live";
  for (const view of Object.keys(VIEWS)) $(`view-${view}`).hidden = view !== chosen;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${chosen}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (current && current !== chosen) VIEWS[current].leave?.();
  current = chosen;
  VIEWS[chosen].enter?.(argument ? decodeURIComponent(argument) : "");
}

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

const preferred = matchMedia("(prefers-color-scheme: dark)");
paint(localStorage.getItem(THEME) ?? (preferred.matches ? "dark" : "light"));
preferred.addEventListener("change", ({ matches }) => {
  if (!localStorage.getItem(THEME)) paint(matches ? "dark" : "light");
});
$("theme").onclick = () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, theme);
  paint(theme);
};
$("key").onclick = async () => (await askForKey()) && route();
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  $("main").focus();
};
addEventListener("hashchange", route);
route();
