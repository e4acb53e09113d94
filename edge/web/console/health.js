// Health: what the gateway measures of itself, every two seconds.

import { $, ask, json, make, show } from "./page.js";

const EVERY_MS = 2000;
const KEPT = 60;
const FIGURES = [
  ["tracks", "Tracks", (now) => now.status.tracks],
  ["sessions", "Sessions", (now) => now.status.active + now.status.detached],
  ["finals", "Finals a minute", (now) => now.rate("otp_transcriptions_received_total", { is_interim: "false" }) * 60],
  ["final", "Speech to final, p50", (now) => now.quantile("edgescribe_final_latency_seconds", 0.5), "s"],
  ["loop", "Event loop delay, p95", (now) => now.quantile("edgescribe_event_loop_delay_seconds", 0.95), "s"],
  ["lost", "Lost packets a second", (now) => now.rate("edgescribe_lost_packets_total")],
  ["shed", "Audio shed, ms a second", (now) => now.rate("edgescribe_audio_shed_milliseconds_total")],
  ["outbox", "Waiting for the dispatcher", (now) => now.sum("edgescribe_dispatch_outbox_messages")],
];
const WORDS = { connection_duration: "Connection duration", disconnection_rate: "Unexpected ends", error_rate: "Errors", reconnection_time: "Back after a loss" };
const VERDICTS = { good: "good", warn: "watch", bad: "bad", insufficient_data: "too few" };
const series = new Map();
let timer = null;
let last = null;

export function enter() {
  timer ??= setInterval(look, EVERY_MS);
  look();
}

export function leave() {
  clearInterval(timer);
  timer = null;
}

export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    if (!found.has(match[1])) found.set(match[1], []);
    found.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return found;
}

class Reading {
  constructor(status, metrics, before) {
    this.status = status;
    this.metrics = metrics;
    this.before = before;
    this.at = performance.now();
  }

  samples(name, wanted = {}) {
    const all = this.metrics.get(name) ?? [];
    return all.filter(({ labels }) => Object.entries(wanted).every(([key, value]) => labels[key] === value));
  }

  sum(name, wanted) {
    return this.samples(name, wanted).reduce((total, { value }) => total + value, 0);
  }

  rate(name, wanted) {
    if (!this.before) return 0;
    return Math.max(0, ((this.sum(name, wanted) - this.before.sum(name, wanted)) * 1000) / (this.at - this.before.at));
  }

  quantile(name, share, wanted = {}) {
    const bounds = new Map();
    for (const { labels, value } of this.samples(`${name}_bucket`, wanted)) {
      const edge = labels.le === "+Inf" ? Infinity : Number(labels.le);
      bounds.set(edge, (bounds.get(edge) ?? 0) + value);
    }
    const sorted = [...bounds].sort(([a], [b]) => a - b);
    const total = sorted.at(-1)?.[1] ?? 0;
    if (!total) return NaN;
    let [low, below] = [0, 0];
    for (const [edge, count] of sorted) {
      if (count >= share * total) return edge === Infinity ? low : low + ((edge - low) * (share * total - below)) / (count - below || 1);
      [low, below] = [edge, count];
    }
    return low;
  }
}

async function look() {
  try {
    const [status, stability, metrics] = await Promise.all([
      json("/status"),
      json("/sessions/metrics"),
      ask("/metrics").then((answer) => answer.text()),
    ]);
    if (!timer) return;
    last = new Reading(status, parse(metrics), last);
    show($("health-error"), "");
    figures(last);
    stabilities(stability);
    recognizers(last);
  } catch (error) {
    show($("health-error"), error.message);
  }
}

function shown(value, unit) {
  if (!Number.isFinite(value)) return "–";
  if (unit === "s") return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
  if (unit === "ms") return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
  if (unit === "ratio") return `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %`;
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 1 : 0);
}

const SVG = "http://www.w3.org/2000/svg";

function chart(values) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", `0 0 ${KEPT - 1} 40`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  const most = Math.max(...values.filter(Number.isFinite), 1e-9);
  let path = "";
  const step = (KEPT - 1) / Math.max(values.length - 1, 14);
  values.forEach((value, index) => {
    if (Number.isFinite(value)) path += `${path ? "L" : "M"}${(index * step).toFixed(1)} ${(38 - (36 * value) / most).toFixed(2)}`;
  });
  line.setAttribute("d", path);
  drawing.append(line);
  return drawing;
}

function figures(now) {
  $("health-figures").replaceChildren(
    ...FIGURES.map(([id, title, of, unit]) => {
      const value = of(now);
      const values = [...(series.get(id) ?? []), value].slice(-KEPT);
      series.set(id, values);
      return make("div", { class: "figure", "data-figure": id }, make("span", {}, title), make("b", {}, shown(value, unit)), chart(values));
    }),
  );
}

function stabilities({ windows }) {
  const rows = Object.entries(WORDS).map(([name, title]) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, title),
      ...["5m", "1h", "24h"].map((window) => {
        const { value, unit, verdict } = windows[window][name];
        return make("td", {}, `${shown(value ?? NaN, unit)} `, make("span", { class: `verdict ${verdict}` }, VERDICTS[verdict]));
      }),
    ),
  );
  $("health-stability").tBodies[0].replaceChildren(...rows);
}

function recognizers(now) {
  const names = new Set();
  for (const metric of ["otp_transcriptions_received_total", "otp_backend_connections_active", "otp_backend_errors_total", "edgescribe_final_latency_seconds_count", "edgescribe_breaker_open"]) {
    for (const { labels } of now.samples(metric)) if (labels.provider) names.add(labels.provider);
  }
  const rows = [...names].sort().map((provider) => {
    const [breaker] = now.samples("edgescribe_breaker_open", { provider });
    const cells = [
      shown(now.sum("otp_backend_connections_active", { provider })),
      breaker ? (breaker.value ? "open" : "closed") : "–",
      shown(now.sum("otp_transcriptions_received_total", { provider, is_interim: "false" })),
      shown(now.sum("otp_backend_errors_total", { provider })),
      shown(now.quantile("edgescribe_final_latency_seconds", 0.5, { provider }), "s"),
    ];
    return make("tr", {}, make("th", { scope: "row" }, provider), ...cells.map((cell) => make("td", {}, cell)));
  });
  const none = make("tr", {}, make("td", { colspan: "6", class: "empty" }, "No recognizer has been used yet."));
  $("health-recognizers").tBodies[0].replaceChildren(...(rows.length ? rows : [none]));
}
