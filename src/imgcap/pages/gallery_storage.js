// What the browser keeps for this page, by key. It may deny storage to local files. Chromium may give a page that is
// loaded again the storage of some seconds ago, so the history's state, which a reload brings back, holds the same.

const STATE_PAUSE = 200; // milliseconds; browsers refuse to change the history's state very often
const newest = { ...history.state }; // what was kept last, by key
let stateTimer = 0;

/** Keeps a text, or null for none. Returns whether the storage has it, and not the history's state alone. */
function keep(key, text) {
  const before = stored(key), kept = { time: Math.max(Date.now(), latest(key, before).time + 1), text };
  newest[key] = kept;
  stateTimer ||= setTimeout(writeState, STATE_PAUSE);
  if (before?.text === text) return true;
  try {
    if (text === null) localStorage.removeItem(key);
    localStorage.setItem(key, JSON.stringify(kept));
    return true;
  } catch { return text === null && canKeep(); }
}

function writeState() {
  clearTimeout(stateTimer);
  stateTimer = 0;
  try { history.replaceState(newest, ""); } catch {} // too large for the browser
}

/** The text that was kept last under `key`, or null. */
const recall = key => latest(key).text;

function latest(key, inStorage = stored(key)) {
  const copies = [newest[key], inStorage].filter(copy => typeof copy?.time === "number");
  return copies.sort((a, b) => b.time - a.time)[0] ?? { time: 0, text: null };
}

function stored(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

function canKeep() {
  try { return Boolean(localStorage); } catch { return false; }
}
