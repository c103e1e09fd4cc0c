// Controls.

$("text").addEventListener("input", event => change({ text: event.target.value }));
$("least").addEventListener("input", event => change({ least: Number(event.target.value) }));
$("sort").addEventListener("change", event => change({ sort: event.target.value }));
states.addEventListener("change", event => change({ state: event.target.value }));
$("clear").addEventListener("click", () => { change({ ...DEFAULTS, sort: view.sort }); $("text").focus(); });
$("help").addEventListener("click", () => keys.showModal());
$("skip").addEventListener("click", () => activate(active));
grid.addEventListener("click", event => {
  const card = event.target.closest(".card");
  if (card) open(Number(card.dataset.place));
});

const MOVES = {
  ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -columns, ArrowDown: () => columns,
  PageUp: () => -screenful(), PageDown: () => screenful(), Home: () => -active, End: () => shown.length - 1 - active,
};
const screenful = () => columns * Math.max(1, Math.floor((innerHeight - parseFloat(grid.style.getPropertyValue("--covered"))) / step));

const DECISIONS = { a: accept, e: () => edit(), s: skipImage, u: undo };

/** The action of a key, if any. */
function action({ key, target }) {
  if (target.matches("textarea")) return null;
  const decision = storageKey && !target.matches("input[type=search]") ? DECISIONS[key.toLowerCase()] : null;
  if (detail.open) {
    if (/^[1-9]$/.test(key)) return () => takeOther(key - 1);
    return decision ?? { ArrowLeft: () => turnOver(-1), ArrowRight: () => turnOver(1), "?": () => keys.showModal() }[key];
  }
  if (target.matches(".card") && decision) return decision;
  if (target.matches(".card") && Object.hasOwn(MOVES, key)) return () => activate(active + MOVES[key]());
  if (target === $("text") && key === "ArrowDown") return () => activate(active);
  if (target.matches("input[type=search], select")) return null;
  return { "/": () => { $("text").focus(); $("text").select(); }, "?": () => keys.showModal(), c: startAtFirst, C: startAtFirst, u: undo, U: undo }[key];
}

document.addEventListener("keydown", event => {
  if (keys.open || saving.open || event.isComposing) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s" && checkable) {
    event.preventDefault();
    openSaving();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = action(event);
  if (!act) return;
  event.preventDefault();
  act();
});

// Theme: the system's, unless the user switches.

const systemDark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  $("theme").setAttribute("aria-pressed", isDark());
}

const isDark = () => (document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";

$("theme").addEventListener("click", () => {
  const dark = !isDark(), theme = dark === systemDark.matches ? null : dark ? "dark" : "light";
  setTheme(theme);
  keep("imgcap-theme", theme);
});
systemDark.addEventListener("change", () => setTheme(document.documentElement.dataset.theme));

// The window.

let drawing = 0;
addEventListener("scroll", () => { drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); }); }, { passive: true });
addEventListener("resize", layOut);
addEventListener("hashchange", () => { readAddress(); select(); if (detail.open && !view.image) detail.close(); else openLinked(); });
addEventListener("beforeprint", () => {
  printing = true;
  draw();
  if (shown.length > MOST_PRINTED) say(`The first ${number(MOST_PRINTED)} of ${images(shown.length)}`);
});
addEventListener("afterprint", () => { printing = false; select(shown[active]); });

let waiting = 0, pause = FIRST_PAUSE;

function load() {
  clearTimeout(waiting);
  const before = rows.length, done = document.readyState !== "loading";
  if (readBlocks() > before || done) {
    const kept = shown[active], focused = grid.contains(document.activeElement);
    sorted = new Map();
    summarise();
    showControls();
    select(kept);
    if (focused) activate(active);
  }
  if (done) {
    startChecking();
    openLinked();
  }
  else waiting = setTimeout(load, pause *= 2);
}

setTheme(recall("imgcap-theme"));
readAddress();
waiting = setTimeout(load);
document.addEventListener("DOMContentLoaded", load);
