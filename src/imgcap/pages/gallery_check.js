// Checking captions: what a person decides about each image. The browser keeps it, and each step can be undone.

const decided = new Map(); // the caption by the number of its row; null for an image that was skipped
const steps = []; // to undo: each step has the rows that it changed, with what was decided about them before
let checkable = 0; // rows that can get a caption
let storageKey = ""; // set once the page is loaded; only then can captions be checked
let isKept = true; // whether the browser keeps the decisions
let isUnsaved = false; // whether there are decisions that no saved file has

/** `text` as one line that any file can hold. */
const clean = text => text.replace(/[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]/gu, " ").replace(/\s+/g, " ").trim();
const canCheck = row => row.path !== "-" && Boolean(!row.error || row.original); // "-" is an image without a file

const verdict = row => {
  const caption = decided.get(row.number);
  return caption === undefined ? "" : caption === null ? "skipped" : caption === row.original ? "accepted" : "corrected";
};

function put(row, caption) {
  if (caption === undefined) decided.delete(row.number);
  else decided.set(row.number, caption);
  row.verdict = verdict(row);
  row.caption = caption ?? row.given;
  row.found = found(row);
  redraw(row);
}

/** Decide about rows in one step, as pairs of row and caption. */
function decide(pairs) {
  steps.push(pairs.map(([row]) => [row, decided.get(row.number)]));
  for (const [row, caption] of pairs) put(row, caption);
  changed();
}

function undo() {
  if (isDrafted()) { // what is typed is the last step
    fill(shown[active]);
    $("accept").focus();
    return;
  }
  const step = steps.pop();
  if (!step) return;
  for (const [row, before] of step) put(row, before);
  changed();
  const row = step[0][0];
  if (!shown.includes(row)) change({ ...DEFAULTS, sort: view.sort });
  show(shown.indexOf(row));
  announce("Undone");
}

function changed() {
  sorted.delete("caption");
  isUnsaved = true;
  store();
  showProgress();
}

// What the browser keeps. The key names the content of the page, so that another page never gets these decisions.

function store(decisions = decided) {
  isKept = keep(storageKey, decisions.size ? JSON.stringify([...decisions]) : null);
}

function restore() {
  let kept = null;
  try { kept = JSON.parse(recall(storageKey)); } catch {}
  const before = [...decided.keys()];
  decided.clear();
  for (const number of before) put(rows[number]);
  for (const [number, caption] of Array.isArray(kept) ? kept.filter(Array.isArray) : []) {
    if (rows[number] && canCheck(rows[number]) && (caption === null || typeof caption === "string")) put(rows[number], caption);
  }
}

addEventListener("storage", event => { // the same page in another tab
  if (event.key !== storageKey || !storageKey) return;
  steps.length = 0;
  sorted.delete("caption");
  restore();
  showProgress();
});
addEventListener("beforeunload", event => {
  if (isKept && isDrafted()) store(new Map(decided).set(edited.number, draft()));
  writeState();
  if (!isKept && (isUnsaved || isDrafted())) event.preventDefault();
});

function startChecking() {
  storageKey = $("digest").textContent;
  for (const row of rows) checkable += canCheck(row);
  $("work").hidden = !checkable;
  restore();
  isKept = canKeep();
  if (decided.size) store();
  isUnsaved = !isKept && decided.size > 0;
  $("check").disabled = $("save").disabled = false;
  showProgress();
}

function progress() {
  const skipped = [...decided.values()].filter(caption => caption === null).length;
  return [`${number(decided.size - skipped)} of ${number(checkable)} checked`, ...skipped ? [`${number(skipped)} skipped`] : []].join(", ");
}

function showProgress() {
  const text = progress() + (isKept ? "" : "; not kept by this browser");
  $("progress").textContent = $("detail-progress").textContent = text;
  $("progress-bar").max = checkable || 1;
  $("progress-bar").value = decided.size;
  $("undo").disabled = !steps.length;
  countStates();
}

const announce = text => { $("said").textContent = text; };

// Decisions about the image that is open, or whose card has the focus.

let edited = null; // the row in the editor
const draft = () => edited ? clean($("edit").value) : null;
const isDrafted = () => Boolean(draft()) && draft() !== clean(edited.caption);

/** Keep what was typed, when the person moves on without accepting it. */
function keepDraft() {
  if (isDrafted()) decide([[edited, draft()]]);
}

function accept() {
  const row = shown[active], text = draft() ?? clean(row?.caption ?? "");
  if (!storageKey || !row || !canCheck(row)) return;
  if (text) settle(row, text);
  else edit("Write a caption, or skip the image.");
}

function skipImage() {
  const row = shown[active];
  if (storageKey && row && canCheck(row)) settle(row, null);
}

function settle(row, caption) {
  const left = decided.size < checkable;
  decide([[row, caption]]);
  $("edit").value = clean(row.caption); // no draft any more
  const next = nextUnchecked();
  if (next >= 0) show(next);
  else {
    show(active);
    if (left && decided.size === checkable) openSaving(`All ${images(checkable)} are checked.`);
  }
  announce(`${NAMES[row.verdict]}; ${progress()}${next < 0 ? "; none is left in this view" : ""}`);
}

/** The place of the next row of the view that can be checked and is not, or -1. */
function nextUnchecked(from = active + 1) {
  const isLeft = row => canCheck(row) && !row.verdict, next = shown.findIndex((row, place) => place >= from && isLeft(row));
  return next >= 0 ? next : shown.findIndex(isLeft);
}

function startAtFirst() {
  if (!storageKey || !checkable) return;
  if (nextUnchecked() < 0) change({ ...DEFAULTS, sort: view.sort });
  open(Math.max(0, nextUnchecked(0)));
}

/** Show the row at `place` where the person is: in the dialog or in the grid. */
const show = place => detail.open ? open(place) : activate(place);

/** Start editing the caption, or say what is missing. */
function edit(complaint = "") {
  if (!detail.open) open(active);
  if (!edited) return;
  if (complaint) {
    $("verdict").replaceChildren(complaint);
    announce(complaint);
  }
  $("edit").focus();
  $("edit").setSelectionRange($("edit").value.length, $("edit").value.length);
}

function takeOther(place) {
  const other = shown[active].alternatives[place];
  if (!other || !edited) return;
  $("edit").value = clean(other.caption);
  edit();
}

$("check").addEventListener("click", startAtFirst);
$("accept").addEventListener("click", accept);
$("skip-image").addEventListener("click", skipImage);
$("undo").addEventListener("click", undo);
$("edit").addEventListener("input", () => { $("undo").disabled = !steps.length && !isDrafted(); });
$("edit").addEventListener("keydown", event => {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter") accept();
  else if (event.key === "Escape") {
    $("edit").value = clean(edited.caption);
    $("accept").focus();
  } else return;
  event.preventDefault();
});
