// The grid: the document holds only the cards on the screen, a few around them, and the active one.

function layOut() {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize), gap = parseFloat(getComputedStyle(grid).getPropertyValue("--gap")) * rem;
  columns = Math.max(1, Math.floor((grid.clientWidth + gap) / (CARD_WIDTH * rem + gap)));
  grid.style.setProperty("--columns", columns);
  const covered = getComputedStyle($("tools")).position === "sticky" ? $("tools").offsetHeight : 0;
  grid.style.setProperty("--covered", `${covered + gap}px`);
  draw();
  if (!cards.size) return;
  step = cards.values().next().value.getBoundingClientRect().height + gap;
  grid.style.setProperty("--step", `${step}px`);
  grid.style.height = `${Math.ceil(shown.length / columns) * step - gap}px`;
  draw();
}

function draw() {
  const top = grid.getBoundingClientRect().top;
  const first = printing ? 0 : Math.max(0, Math.floor(-top / step) - ROWS_AHEAD) * columns;
  const end = printing ? Math.min(shown.length, MOST_PRINTED) : Math.min(shown.length, (Math.ceil((innerHeight - top) / step) + ROWS_AHEAD) * columns);
  const wanted = new Set(printing || active >= shown.length ? [] : [active]); // the focused card must stay
  for (let place = first; place < end; place++) wanted.add(place);
  for (const [place, item] of cards) if (!wanted.has(place)) { item.remove(); cards.delete(place); }
  let next = grid.firstChild;
  for (const place of [...wanted].sort((a, b) => a - b)) {
    let item = cards.get(place);
    if (item) next = item.nextSibling;
    else { item = makeCard(place); cards.set(place, item); grid.insertBefore(item, next); }
    item.style.setProperty("--row", Math.floor(place / columns));
    item.style.setProperty("--column", place % columns);
  }
}

/** Draw the card of a row again, if it is in the document. */
function redraw(row) {
  for (const [place, item] of cards) {
    if (shown[place] !== row) continue;
    const made = makeCard(place), hadFocus = item.contains(document.activeElement);
    item.replaceChildren(made.firstChild);
    if (hadFocus) item.firstChild.focus({ preventScroll: true });
  }
}

function activate(place) {
  cards.get(active)?.firstChild.setAttribute("tabindex", "-1");
  active = Math.min(Math.max(place, 0), Math.max(shown.length - 1, 0));
  draw();
  const item = cards.get(active);
  if (!item) return;
  item.firstChild.tabIndex = 0;
  item.scrollIntoView({ block: "nearest" });
  draw();
  item.firstChild.focus({ preventScroll: true });
}

// Filter and order.

const ORDERS = {
  given: () => 0,
  path: (a, b) => collator.compare(a.path, b.path),
  caption: (a, b) => !a.caption - !b.caption || collator.compare(a.caption, b.caption),
  "confidence-down": (a, b) => b.percent - a.percent || (b.confidence ?? 0) - (a.confidence ?? 0),
  "confidence-up": (a, b) => (a.percent < 0) - (b.percent < 0) || (a.confidence ?? 0) - (b.confidence ?? 0),
};
const collator = new Intl.Collator("en", { numeric: true });

const LASTING = { // states that are offered even if no row is in them
  all: () => true,
  unchecked: row => canCheck(row) && !row.verdict,
  checked: row => row.verdict !== "" && row.verdict !== "skipped",
};
const inState = (row, state) => state === "warned" ? Boolean(row.warning) : LASTING[state]?.(row) ?? row.state === state;

function select(kept) {
  if (!sorted.has(view.sort)) sorted.set(view.sort, rows.slice().sort(ORDERS[view.sort]));
  const words = fold(view.text).split(/\s+/).filter(Boolean);
  shown = sorted.get(view.sort).filter(row =>
    (!view.least || row.percent >= view.least) && inState(row, view.state) && words.every(word => row.found.includes(word)));
  for (const item of cards.values()) item.remove();
  cards.clear();
  active = Math.max(0, shown.indexOf(kept));
  $("none").hidden = shown.length > 0;
  $("none").firstChild.textContent = rows.length ? "No image passes the filter." : "There are no images on this page.";
  $("clear").hidden = !rows.length;
  grid.hidden = !shown.length;
  layOut();
  const loading = document.readyState === "loading";
  grid.setAttribute("aria-busy", loading);
  say(loading ? "Loading …" : shown.length === rows.length ? images(rows.length) : `${number(shown.length)} of ${images(rows.length)}`);
}

function say(text) {
  if (count.textContent !== text) count.textContent = text;
}

function countStates() {
  for (const input of states.querySelectorAll("input")) {
    const n = rows.filter(row => inState(row, input.value)).length;
    input.parentNode.querySelector("b").textContent = number(n);
    input.parentNode.hidden = !n && !input.checked && !Object.hasOwn(LASTING, input.value);
  }
}

function summarise() {
  countStates();
  const bins = new Array(BINS).fill(0), width = 100 / BINS;
  for (const row of rows) if (row.percent >= 0) bins[Math.min(BINS - 1, Math.floor(row.percent / width))]++;
  const most = Math.max(1, ...bins);
  $("histogram").replaceChildren(...bins.map((n, i) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect"), height = n && Math.max(1, 24 * n / most);
    for (const [name, value] of Object.entries({ x: i * width + .3, width: width - .6, y: 24 - height, height })) bar.setAttribute(name, value);
    return bar;
  }));
}

function showControls() {
  if ($("text").value !== view.text) $("text").value = view.text;
  $("least").value = view.least;
  $("least-value").textContent = `${view.least}%`;
  $("least").setAttribute("aria-valuetext", `${view.least}%`);
  $("sort").value = view.sort;
  for (const input of states.querySelectorAll("input")) input.checked = input.value === view.state;
  [...$("histogram").children].forEach((bar, i) => bar.classList.toggle("below", (i + 1) * 100 / BINS <= view.least));
}

function change(part) {
  view = { ...view, ...part };
  showControls();
  select();
  const start = grid.getBoundingClientRect().top + scrollY - parseFloat(grid.style.getPropertyValue("--covered"));
  if (scrollY > start) scrollTo(0, start);
  writeAddress();
}

// The view in the address, so that it can be linked to.

let writing = 0;

function writeAddress() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    const changed = Object.entries(view).filter(([name, value]) => value !== DEFAULTS[name]);
    history.replaceState(history.state, "", location.href.split("#")[0] + (changed.length ? "#" + new URLSearchParams(changed) : "#"));
  }, 150);
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1)), whole = (name, most) => Math.min(most, Math.max(0, parseInt(given.get(name), 10) || 0));
  view = {
    text: given.get("text") ?? "",
    least: whole("least", 100),
    state: [...states.querySelectorAll("input")].some(input => input.value === given.get("state")) ? given.get("state") : "all",
    sort: Object.hasOwn(ORDERS, given.get("sort") ?? "") ? given.get("sort") : "given",
    image: whole("image", 1e9),
  };
  showControls();
}

function openLinked() {
  const place = view.image ? shown.findIndex(row => row.number === view.image - 1) : -1;
  if (place >= 0) open(place);
}
