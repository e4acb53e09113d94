// What all views use: elements, the key, requests, words for errors.

export const $ = (id) => document.getElementById(id);

// Text goes in as text only: what people say, and what they call themselves, is not trusted.
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const KEY = "edgescribe.key";
export const key = () => sessionStorage.getItem(KEY) ?? "";

let asking = null;
export function askForKey(reason) {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    if (reason) $("key-reason").textContent = reason;
    $("key-input").value = "";
    dialog.returnValue = "";
    dialog.showModal();
    dialog.onclose = () => {
      asking = null;
      const given = $("key-input").value.trim();
      $("key-input").value = "";
      if (dialog.returnValue !== "save") return resolve(false);
      if (given) sessionStorage.setItem(KEY, given);
      else sessionStorage.removeItem(KEY);
      resolve(true);
    };
  });
  return asking;
}

export class Refused extends Error {}

export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const shown = key();
  if (shown) headers.Authorization = `Bearer ${shown}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused("The gateway cannot be reached.");
  }
  if (answer.status === 401 && !options.quiet) {
    // A key that was given while this was on its way is tried before another is asked for.
    if (key() !== shown || (await askForKey("This gateway asks for a key."))) return ask(path, options);
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => null);
    throw new Refused(problem?.detail ?? `The gateway answered ${answer.status}.`);
  }
  return answer;
}

export const json = async (path, options) => (await ask(path, options)).json();

export function clock(ms) {
  const whole = Math.max(0, Math.floor(ms / 1000));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return [...(h ? [h] : []), String(m).padStart(h ? 2 : 1, "0"), String(s).padStart(2, "0")].join(":");
}

export function hue(name) {
  let sum = 7;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  return (sum * 137) % 360;
}

export function who(name) {
  const element = make("span", { class: "who" }, name);
  element.style.setProperty("--hue", hue(name));
  return element;
}

export const path = (session) => `/v1/sessions/${encodeURIComponent(session)}`;

export function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}
