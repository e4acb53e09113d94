// Live: a microphone, or the sample, to captions.

import { EdgeSession } from "/edgescribe.js";
import { $, Refused, ask, key, make, show } from "./page.js";

const RATE = 16000;
const CHUNK_MS = 40;
let session = null;
let context = null;
let stopSource = null;
let partial = null;
let sentAt = new Map(); // when each of the last frames was recorded

export function enter() {
  if ($("providers").children.length) return;
  for (const name of ["embedded", "openai", "deepgram", "deepgram-flux", "funasr"]) {
    $("providers").append(make("option", { value: name }));
  }
}

function state(text, kind = text) {
  $("live-state").textContent = text;
  $("live-state").className = `badge ${kind}`;
}

function busy(on) {
  for (const id of ["live-mic", "live-sample", "live-session", "live-speaker", "live-provider"]) $(id).disabled = on;
  $("live-stop").disabled = !on;
}

function caption(element) {
  const box = $("live-captions");
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  box.querySelector(".empty")?.remove();
  if (partial && partial !== element) partial.before(element);
  else if (!element.isConnected) box.append(element);
  if (follows) box.scrollTop = box.scrollHeight;
}

function connect() {
  const options = { role: "speaker", speaker: $("live-speaker").value.trim() || "console", key: key() };
  if ($("live-session").value.trim()) options.session = $("live-session").value.trim();
  if ($("live-provider").value.trim()) options.provider = $("live-provider").value.trim();
  const made = new EdgeSession("/listen", options);
  made.on("state", (now, detail) => {
    if (made !== session) return;
    state(now);
    if (now === "closed" && detail?.code !== 1000) {
      show($("live-error"), detail?.reason || `The connection was closed (${detail?.code}).`);
      stop();
    }
  });
  made.on("welcome", ({ session: name }) => {
    if (made === session) $("live-session").value = name;
  });
  made.on("reset", () => made === session && $("live-captions").replaceChildren());
  made.on("error", (problem) => made === session && show($("live-error"), problem.message));
  made.on("part", ({ speaker, text }) => {
    if (speaker !== made.speaker) return;
    partial ??= make("p", { class: "interim" });
    partial.textContent = text;
    caption(partial);
  });
  made.on("final", (data, event) => {
    if (data.speaker !== made.speaker) return;
    partial?.remove();
    partial = null;
    const line = make("p", {}, data.text);
    const took = performance.now() - sentAt.get(data.audio_seq);
    if (took >= 0) {
      line.append(make("small", { class: "latency" }, `${Math.round(took)} ms`));
      $("live-latency").textContent = `${Math.round(took)} ms`;
    }
    caption(line);
  });
  const send = made.send.bind(made);
  sentAt = new Map();
  made.send = (samples) => {
    level(samples);
    send(samples);
    sentAt.set(made._seq, performance.now());
    sentAt.delete(made._seq - 4000);
  };
  made.connect();
  return made;
}

function level(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  $("live-level").value = Math.min(1, (Math.sqrt(sum / samples.length) / 32768) * 4);
}

const opened = (made) =>
  new Promise((resolve, reject) => {
    if (made.state === "open") return resolve();
    const off = made.on("state", (now, detail) => {
      if (now === "open") off(), resolve();
      if (now === "closed") off(), reject(new Refused(detail?.reason || "The gateway refused the connection."));
    });
  });

async function trip() {
  while (session) {
    const mine = session;
    const began = performance.now();
    await mine.command("history", { limit: 1 }).catch(() => null);
    if (mine !== session) return;
    $("live-trip").textContent = `${Math.round(performance.now() - began)} ms`;
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

async function begin(source) {
  show($("live-error"), "");
  busy(true);
  state("connecting", "waiting");
  try {
    session = connect();
    await opened(session);
    stopSource = await source();
    trip();
  } catch (error) {
    show($("live-error"), word(error));
    await stop();
  }
}

const word = (error) =>
  ({
    NotAllowedError: "The browser does not let this page use the microphone.",
    NotFoundError: "There is no microphone.",
  })[error.name] ?? error.message;

async function microphone() {
  const mine = session;
  await mine.startMicrophone();
  mine.on("microphone_lost", () => show($("live-error"), "The microphone is gone."));
  return () => mine.stopMicrophone();
}

async function sample() {
  const data = await (await ask("/console/sample.ogg")).arrayBuffer();
  context ??= new AudioContext();
  await context.resume();
  const offline = new OfflineAudioContext(1, 1, RATE);
  const audio = await offline.decodeAudioData(data);
  const pcm = Int16Array.from(audio.getChannelData(0), (value) => Math.max(-1, Math.min(1, value)) * 32767);
  const player = context.createBufferSource();
  player.buffer = audio;
  player.connect(context.destination);
  player.start();
  const size = (RATE * CHUNK_MS) / 1000;
  const began = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.floor((performance.now() - began) / CHUNK_MS) * size;
    while (sent < due && sent < pcm.length + 2 * RATE) {
      const part = pcm.subarray(sent, sent + size);
      session?.send(part.length === size ? part : Int16Array.from({ length: size }, (_, index) => part[index] ?? 0));
      sent += size;
    }
    if (sent >= pcm.length + 2 * RATE) stop();
  }, CHUNK_MS);
  return () => {
    clearInterval(timer);
    player.stop();
  };
}

async function stop() {
  const ending = session;
  const source = stopSource;
  stopSource = null;
  await source?.();
  $("live-level").value = 0;
  if (ending && ending.state !== "closed") {
    state("finishing", "waiting");
    await ending.leave().catch(() => null);
  }
  if (session === ending) session = null;
  partial?.remove();
  partial = null;
  state("idle");
  busy(false);
}

$("live-form").onsubmit = (event) => {
  event.preventDefault();
  if (!session) begin(microphone);
};
$("live-sample").onclick = () => !session && begin(sample);
$("live-stop").onclick = stop;
