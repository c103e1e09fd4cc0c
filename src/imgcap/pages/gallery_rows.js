const CARD_WIDTH = 15.5; // minimum, in rem; the style sheet sets the height
const ROWS_AHEAD = 2; // rows of cards drawn above and below the screen
const MOST_PRINTED = 1000;
const FIRST_PAUSE = 125; // ms until rows read so far are shown; each pause is twice as long as the one before
const BINS = 25;
const NAMES = { failed: "Failed", withheld: "Withheld", warned: "Warning", accepted: "Checked", corrected: "Corrected", skipped: "Skipped" };
const DEFAULTS = { text: "", least: 0, state: "all", sort: "given", image: 0 };

const $ = id => document.getElementById(id);
const grid = $("grid"), detail = $("detail"), keys = $("keys"), count = $("count"), states = $("states");

const rows = []; // all rows read so far, in the order given
let shown = []; // rows that pass the filter, sorted
let sorted = new Map(); // all rows, by the name of each order used so far
let view = { ...DEFAULTS }; // the part of the address after #; image counts from 1, 0 is none
let active = 0; // index in `shown` of the card that Tab reaches
let columns = 1, step = Infinity, printing = false; // step: px from one row of cards to the next, once measured
const cards = new Map(); // cards in the document, by index in `shown`

// Rows and thumbnails. The blocks follow this script, so that the first images appear while the rest loads.

const rowBlocks = document.getElementsByClassName("rows"), thumbnailBlocks = document.getElementsByClassName("thumbnails");
let blocksRead = 0, opened = { block: -1, thumbnails: [] };

function readBlocks() {
  const whole = rowBlocks.length - (document.readyState === "loading" ? 1 : 0);
  for (; blocksRead < whole; blocksRead++) {
    JSON.parse(rowBlocks[blocksRead].textContent).forEach((row, line) => {
      const given = row.caption ?? "", one = {
        ...row, caption: given, given, original: clean(given), verdict: "",
        number: rows.length, block: blocksRead, line,
        state: row.error ? "failed" : row.withheld ? "withheld" : "captioned",
        percent: percent(row.confidence),
        words: row.words ?? [], alternatives: row.alternatives ?? [], nearest: row.nearest ?? [],
      };
      rows.push({ ...one, found: found(one) });
    });
  }
  return rows.length;
}

function thumbnail(row) {
  if (opened.block !== row.block) opened = { block: row.block, thumbnails: thumbnailBlocks[row.block].textContent.split("\n") };
  return opened.thumbnails[row.line];
}

// Text and elements. Values from a row become text or attributes, never markup.

const found = row => fold(row.caption + "\n" + row.path);
const fold = text => text.normalize("NFC").toLowerCase();
const percent = share => share == null ? -1 : Math.round(100 * share);
const number = value => value.toLocaleString("en");
const images = n => `${number(n)} ${n === 1 ? "image" : "images"}`;
const share = value => value > 0 && value < 0.005 ? "<1%" : `${percent(value)}%`;

/** `text` with escapes for invisible characters and those that change the direction of text. */
const visible = text => String(text).replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu, c => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children.filter(child => child != null));
  return element;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), use = document.createElementNS(svg.namespaceURI, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", "#" + name);
  svg.append(use);
  return svg;
}

function preview(row) {
  const data = thumbnail(row);
  if (!data) return null;
  const img = make("img");
  img.alt = row.caption ? visible(row.caption) : "Image without a caption";
  img.src = "data:image/webp;base64," + data;
  img.draggable = false;
  return img;
}

function meter(value) {
  const bar = make("i"), text = share(value);
  bar.style.setProperty("--share", `${Math.min(100, Math.max(0, 100 * value))}%`);
  return [bar, text];
}

function confidence(row) {
  if (row.verdict === "corrected") return make("span", "meter", "Written by a person");
  if (row.percent < 0) return make("span", "meter", row.state === "failed" ? null : "No confidence given");
  const [bar, text] = meter(row.confidence);
  return make("span", "meter", make("span", "name", "Confidence "), bar, make("b", "", text));
}

const mark = row => row.verdict || (row.state !== "captioned" ? row.state : row.warning ? "warned" : "");

function sentence(row) {
  if (row.verdict && row.caption) return visible(row.caption);
  if (row.state === "failed") return visible(row.error);
  if (row.caption) return visible(row.caption);
  return row.state === "withheld" ? "No caption: its confidence is below the limit." : "No caption";
}

function label(row) {
  const sure = row.percent < 0 ? "" : `confidence ${share(row.confidence)}`;
  return [NAMES[mark(row)], sentence(row), sure, visible(row.path)].filter(Boolean).map(part => part.replace(/\.$/, "")).join(". ");
}

function pathLine(path) {
  const cut = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1;
  return make("span", "path", make("span", "", visible(path.slice(0, cut))), make("span", "", visible(path.slice(cut))));
}

function makeCard(place) {
  const row = shown[place], badge = mark(row);
  const card = make("button", `card is-${row.verdict || row.state}`,
    make("span", "image", preview(row) ?? (badge ? null : "No preview"), badge && make("span", `badge ${badge}`, icon(badge), NAMES[badge])),
    make("span", "words", make("span", "caption", sentence(row)), confidence(row), pathLine(row.path)));
  card.type = "button";
  card.tabIndex = place === active ? 0 : -1;
  card.dataset.place = place;
  card.setAttribute("aria-haspopup", "dialog");
  card.setAttribute("aria-label", label(row));
  const item = make("li", "", card);
  item.setAttribute("aria-setsize", shown.length);
  item.setAttribute("aria-posinset", place + 1);
  return item;
}
