// What the browser keeps for this page, by key. It may deny storage to local files. Chromium may give a page that is
// loaded again the storage of some seconds ago, so the history's state, which a reload brings back, holds the same.

/** Keeps a text, or null for none. Returns whether the storage has it, and not the history's state alone. */
function keep(key, text) {
  const kept = { time: Math.max(Date.now(), latest(key).time + 1), text };
  try { history.replaceState({ ...history.state, [key]: kept }, ""); } catch {} // refused if called very often
  if (stored(key)?.text === text) return true;
  try {
    if (text === null) localStorage.removeItem(key);
    localStorage.setItem(key, JSON.stringify(kept));
    return true;
  } catch { return text === null && canKeep(); }
}

/** The text that was kept last under `key`, or null. */
const recall = key => latest(key).text;

function latest(key) {
  const copies = [history.state?.[key], stored(key)].filter(copy => typeof copy?.time === "number");
  return copies.sort((a, b) => b.time - a.time)[0] ?? { time: 0, text: null };
}

function stored(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

function canKeep() {
  try { return Boolean(localStorage); } catch { return false; }
}
