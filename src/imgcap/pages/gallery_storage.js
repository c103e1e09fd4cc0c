// What the browser keeps for this page, by key. It may deny storage to local files. Chromium may give a page that is
// loaded again the storage of some seconds ago, so the name of the window, which stays the same then, holds it too.

/** Keeps a text, or null for none, in the window's name and in the storage. Returns false if the storage lacks a text. */
function keep(key, text) {
  const kept = JSON.stringify({ time: Date.now(), text });
  window.name = JSON.stringify({ ...named(), [key]: kept });
  try {
    localStorage.setItem(key, kept);
    return true;
  } catch { return text === null; }
}

/** The text that was kept last under `key`, or null. */
function recall(key) {
  const [last] = [named()[key], stored(key)].map(parsed).sort((a, b) => b.time - a.time);
  return typeof last.text === "string" ? last.text : null;
}

function canKeep() {
  try { return Boolean(localStorage); } catch { return false; }
}

function stored(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

const named = () => parsed(window.name);

/** The object that `text` is in JSON, or an empty one. */
function parsed(text) {
  try { return { time: 0, ...JSON.parse(text) }; } catch { return { time: 0 }; }
}
