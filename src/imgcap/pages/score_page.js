"use strict";
{
const $ = id => document.getElementById(id);
const fold = text => text.normalize("NFC").toLowerCase();
const cards = [...$("cards").children].map((element, place) => ({
  element,
  place,
  groups: element.dataset.groups.split(" "),
  found: fold([...element.querySelectorAll(".caption span, .references li, .id span")].map(part => part.textContent).join("\n")),
  cider: parseFloat(element.dataset.cider),
  gain: parseFloat(element.dataset.gain),
  bleu: parseFloat(element.dataset.bleu),
  words: parseFloat(element.dataset.words),
}));
const images = n => `${n.toLocaleString("en")} ${n === 1 ? "image" : "images"}`;

function filter() {
  const words = fold($("text").value).split(/\s+/).filter(Boolean);
  const group = $("groups").querySelector(":checked").value;
  const least = $("least").valueAsNumber, most = $("most").valueAsNumber; // NaN if empty, which limits nothing
  for (const { element, groups, found, cider } of cards) {
    const passes = (group === "all" || groups.includes(group)) && words.every(word => found.includes(word));
    element.hidden = !passes || cider < least || cider > most;
  }
  const shown = cards.filter(card => !card.element.hidden).length;
  $("count").textContent = shown === cards.length ? images(shown) : `${shown} of ${images(cards.length)}`;
  $("none").hidden = shown > 0 || !cards.length;
}

function sort() {
  const [key, direction] = $("sort").value.split("-"), sign = direction === "up" ? 1 : -1;
  cards.sort((a, b) => isNaN(a[key]) - isNaN(b[key]) || sign * (a[key] - b[key]) || 0);
  $("cards").append(...cards.map(card => card.element));
}

function clear() {
  $("text").value = $("least").value = $("most").value = "";
  $("groups").querySelector("[value=all]").checked = true;
  filter();
  $("text").focus();
}

for (const id of ["text", "least", "most", "groups"]) $(id).addEventListener("input", filter);
$("sort").addEventListener("change", sort);
$("clear").addEventListener("click", clear);
$("filters").hidden = false;
sort();
filter();
}
