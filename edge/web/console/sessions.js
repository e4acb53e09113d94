// Sessions: find them, read them, follow them, hear them.

import { EdgeSession } from "/edgescribe.js";
import { $, ask, clock, json, key, make, path, show, who } from "./page.js";

const ROLES = ["mixed", "teacher", "students"];
const PAGE = 50;
let after = null;
let reading = null; // what is shown: its name, its follower, its lines

export function enter(name) {
  if (!$("session-list").children.length) find();
  if (name && name !== reading?.name) open(name);
}

export function leave() {
  reading?.follower?.close();
  reading = null;
}

async function find(more = false) {
  const query = new URLSearchParams({ prefix: $("find-prefix").value, limit: PAGE });
  if (more && after) query.set("after", after);
  const list = $("session-list");
  try {
    const { sessions, next } = await json(`/v1/sessions?${query}`);
    if (!more) list.replaceChildren();
    after = next;
    $("session-more").hidden = !next;
    for (const { session_id, updated_at, head } of sessions) {
      const when = new Date(updated_at).toLocaleString();
      const link = make("button", { type: "button", "data-session": session_id }, session_id, make("small", {}, `${when} · ${head} entries`));
      link.onclick = () => (location.hash = `#sessions/${encodeURIComponent(session_id)}`);
      list.append(make("li", {}, link));
    }
    if (!list.children.length) list.append(make("li", { class: "empty" }, "No session has such a name."));
    mark();
  } catch (error) {
    list.replaceChildren(make("li", { class: "error" }, error.message));
  }
}

function mark() {
  for (const link of $("session-list").querySelectorAll("button")) {
    if (link.dataset.session === reading?.name) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

async function open(name) {
  leave();
  const mine = (reading = { name, lines: [], interims: new Map(), view: "raw", role: null });
  mark();
  const place = $("session");
  place.replaceChildren(make("p", { class: "empty" }, "Loading …"));
  try {
    const [state, meeting] = await Promise.all([json(path(name)), json(`${path(name)}/state`)]);
    if (mine !== reading) return;
    mine.roles = ROLES.filter((role) => meeting.ingest_by_stream?.[role]?.received_chunks > 0);
    mine.role = mine.roles[0] ?? null;
    draw(mine, state);
    follow(mine);
    if (mine.role) load(mine);
  } catch (error) {
    if (mine === reading) place.replaceChildren(make("p", { class: "error" }, error.message));
  }
}

function draw(mine, state) {
  mine.badge = make("span", { class: "badge", role: "status" }, "…");
  mine.count = make("span", { class: "interim" });
  mine.body = make("div", { class: "transcript", role: "log", tabindex: "0", "aria-label": "What was said" });
  const format = make("select", { "aria-label": "Format" }, ...["srt", "vtt", "txt", "json"].map((each) => make("option", {}, each)));
  const download = make("button", { type: "button", onclick: () => save(mine, format.value) }, "Export");
  const remove = make("button", { type: "button", class: "danger", onclick: () => erase(mine) }, "Delete");
  const place = $("session");
  place.replaceChildren(
    make("div", { class: "head" }, make("h3", {}, mine.name), mine.badge, make("span", { class: "actions" }, format, download, remove)),
    make("p", { class: "interim" }, `Since ${new Date(state.created_at).toLocaleString()} · `, mine.count),
  );
  mine.count.textContent = `${state.connections.length} connected`;
  if (mine.role) place.append(controls(mine), (mine.player = player(mine)));
  place.append((mine.problem = make("p", { class: "error", role: "alert", hidden: true })), mine.body);
  paint(mine);
}

function controls(mine) {
  const role = make("select", {}, ...mine.roles.map((each) => make("option", {}, each)));
  role.onchange = () => ((mine.role = role.value), load(mine), paint(mine));
  const view = make("select", {}, make("option", { value: "raw" }, "as it was said"), make("option", { value: "merged" }, "merged"));
  view.onchange = () => ((mine.view = view.value), paint(mine));
  return make("div", { class: "controls" }, make("label", {}, "Stream", role), make("label", {}, "Text", view));
}

function player(mine) {
  const audio = make("audio", { controls: true, preload: "none", "aria-label": "Stored audio" });
  audio.ontimeupdate = () => {
    const now = audio.currentTime * 1000;
    for (const line of mine.body.children) {
      line.classList.toggle("now", !audio.paused && line.dataset.start <= now && now < line.dataset.end);
    }
  };
  return audio;
}

// A player cannot show a key, so that the audio is fetched here.
async function load(mine) {
  try {
    const answer = await ask(`${path(mine.name)}/audio?stream_role=${mine.role}`);
    const blob = await answer.blob();
    if (mine !== reading) return;
    URL.revokeObjectURL(mine.player.src);
    mine.player.src = URL.createObjectURL(blob);
  } catch (error) {
    if (mine === reading) show(mine.problem, error.message);
  }
}

function follow(mine) {
  const follower = new EdgeSession("/listen", { session: mine.name, key: key() });
  mine.follower = follower;
  follower.on("state", (now) => {
    if (mine !== reading) return;
    mine.badge.textContent = now === "open" ? "following" : now;
    mine.badge.className = `badge ${now}`;
  });
  follower.on("reset", () => ((mine.lines = []), later(mine)));
  follower.on("final", (data) => {
    mine.interims.delete(data.speaker);
    mine.lines.push(data);
    later(mine);
  });
  follower.on("part", ({ speaker, text }) => {
    mine.interims.set(speaker, text);
    later(mine);
  });
  follower.connect();
}

function later(mine) {
  mine.due ??= requestAnimationFrame(() => {
    mine.due = null;
    if (mine === reading) paint(mine);
  });
}

async function paint(mine) {
  const lines = await linesOf(mine).catch((error) => (show(mine.problem, error.message), []));
  if (mine !== reading) return;
  const drawn = lines.map((line) => lineOf(mine, line));
  if (mine.view === "raw") {
    for (const [speaker, text] of mine.interims) {
      if (text) drawn.push(make("div", { class: "line interim" }, make("time", {}, "now"), make("span", {}, who(speaker), text)));
    }
  }
  const body = mine.body;
  body.replaceChildren(...drawn);
  if (!drawn.length) body.append(make("p", { class: "empty" }, "Nothing has been said yet."));
}

async function linesOf(mine) {
  if (mine.view === "merged") {
    const query = new URLSearchParams({ stream_role: mine.role, view: "merged", limit: 1000 });
    const { items } = await json(`${path(mine.name)}/utterances?${query}`);
    return items.map((item) => ({ ...item, speaker: item.stream_role }));
  }
  const shown = mine.role ? mine.lines.filter(({ speaker }) => speaker.split("/")[0] === mine.role) : mine.lines;
  return [...shown].sort((a, b) => a.start_ms - b.start_ms);
}

function lineOf(mine, { speaker, text, start_ms, end_ms }) {
  const at = clock(start_ms);
  const seek = () => {
    mine.player.currentTime = start_ms / 1000;
    mine.player.play();
  };
  const time = mine.player ? make("button", { type: "button", class: "seek", onclick: seek, "aria-label": `Play from ${at}` }, at) : at;
  return make("div", { class: "line", "data-start": start_ms, "data-end": end_ms }, make("time", {}, time), make("span", {}, who(speaker), text));
}

async function save(mine, format) {
  try {
    const answer = await ask(`${path(mine.name)}/export?format=${format}`);
    const url = URL.createObjectURL(await answer.blob());
    const link = make("a", { href: url, download: `${mine.name.replace(/[^\w.-]+/g, "_")}.${format}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) {
    show(mine.problem, error.message);
  }
}

function erase(mine) {
  const dialog = $("sure");
  $("sure-text").textContent = `“${mine.name}”: its text, its records and its stored audio are removed for everybody.`;
  dialog.returnValue = "";
  dialog.showModal();
  dialog.onclose = async () => {
    if (dialog.returnValue !== "delete") return;
    try {
      await ask(path(mine.name), { method: "DELETE" });
      leave();
      $("session").replaceChildren(make("p", { class: "empty" }, "The session was deleted."));
      history.replaceState(null, "", "#sessions");
      find();
    } catch (error) {
      show(mine.problem, error.message);
    }
  };
}

$("find").onsubmit = (event) => {
  event.preventDefault();
  find();
};
$("session-more").onclick = () => find(true);
