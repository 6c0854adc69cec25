// What the console's pages do beyond links and forms: keys, times in the reader's zone, marking all rows, and a live
// strip that says when it lost its stream. Every page works without this file.
"use strict";

const shown = new Intl.DateTimeFormat(undefined, {dateStyle: "short", timeStyle: "medium"});

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime()) || time.title) continue;
    time.title = time.textContent;
    time.textContent = shown.format(at);
  }
  for (const title of root.querySelectorAll("title[data-at]")) {
    const local = shown.format(new Date(title.dataset.at));
    title.textContent = title.textContent.replace(/^.*? UTC/, (utc) => `${local} (${utc})`);
    title.removeAttribute("data-at");
  }
}

function markAll() {
  for (const all of document.querySelectorAll("input[data-all]")) {
    all.hidden = false;
    all.addEventListener("change", () => {
      for (const one of all.form.querySelectorAll(`input[name=${all.dataset.all}]`)) one.checked = all.checked;
    });
  }
}

const rows = () => [...document.querySelectorAll("table.rows tbody tr")];
let current = -1;

function move(step) {
  const all = rows();
  if (!all.length) return;
  if (current >= 0 && current < all.length) all[current].classList.remove("current");
  current = Math.min(Math.max(current + step, 0), all.length - 1);
  all[current].classList.add("current");
  all[current].scrollIntoView({block: "nearest"});
  const row = all[current];
  const target = row.querySelector("a.open") ?? row.querySelector("a, input[type=checkbox], input[type=radio]");
  if (target) target.focus({preventScroll: true});
}

const onRows = {
  j: () => move(1),
  k: () => move(-1),
  o: () => rows()[current]?.querySelector("a.open, a")?.click(),
  x: () => { const box = rows()[current]?.querySelector("input[type=checkbox]"); if (box) box.checked = !box.checked; },
};

function help() {
  const keys = document.querySelector(".keys");
  if (!keys) return;
  keys.setAttribute("tabindex", "-1");
  keys.scrollIntoView({block: "center"});
  keys.focus();
}

function typing(target) {
  return target.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const named = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (named) {
    event.preventDefault();
    if (named.matches("input, textarea")) named.focus();
    else named.click();
  } else if (event.key === "?") {
    help();
  } else if (onRows[event.key]) {
    event.preventDefault();
    onRows[event.key]();
  }
});

function pausing() {
  const strip = document.getElementById("strip");
  const state = document.getElementById("strip-state");
  const pause = document.getElementById("strip-pause");
  if (!strip || !state || !pause) return;
  const tell = (text) => { if (state.textContent !== text) state.textContent = text; };
  let paused = false;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
    tell(paused ? "Paused." : "Live.");
  });
  document.body.addEventListener("htmx:sseBeforeMessage", (event) => { if (paused) event.preventDefault(); });
  document.body.addEventListener("htmx:sseMessage", () => { if (!paused) tell("Live."); localTimes(strip); });
  document.body.addEventListener("htmx:sseError", () => { if (!paused) tell("The stream was lost; asking again."); });
  // A browser has six connections to a server that speaks HTTP/1.1: a tab that nobody sees takes none of them for long.
  const live = strip.closest("[sse-connect]");
  document.addEventListener("visibilitychange", () => {
    const all = [live, ...live.querySelectorAll("[sse-swap]")];
    if (document.hidden) htmx.trigger(live, "htmx:beforeCleanupElement");
    else all.forEach((one) => htmx.trigger(one, "htmx:afterProcessNode"));
  });
}

// A page that shows work under way is loaded again every five seconds, but not while somebody fills in a form.
function reloading() {
  const where = document.querySelector("[data-reload]");
  if (!where) return;
  let written = false;
  document.addEventListener("input", () => { written = true; });
  setInterval(() => {
    if (!written && !document.activeElement?.closest("form") && !document.hidden) location.replace(where.dataset.reload);
  }, 5000);
}

localTimes(document);
markAll();
reloading();
pausing();
