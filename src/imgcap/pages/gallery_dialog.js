// The detail dialog.

const section = (title, list) => list.childElementCount ? [make("h3", "", title), list] : [];
const ranked = pairs => make("ul", "ranked", ...pairs.map(([name, value]) => make("li", "", make("span", "", visible(name)), make("b", "", value == null ? "" : share(value)))));
const note = (kind, text) => make("p", `note ${kind}`, icon(kind), make("span", "", make("strong", "", STATES[kind], ": "), text));

function spoken(words) {
  return make("ol", "spoken", ...words.map(([word, probability]) => {
    const [bar, text] = meter(probability);
    return make("li", "", make("span", "", visible(word)), bar, make("small", "", text));
  }));
}

function facts(row) {
  const known = [["Model", row.model], ["Log-probability", row.log_probability?.toFixed(2).replace("-", "−")],
    ["Originality", row.verbatim == null ? null : row.verbatim ? "Word for word a caption of the training data" : "Not among the captions of the training data"]];
  return make("dl", "facts", ...known.filter(([, value]) => value != null).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", visible(value))]));
}

function fill(row) {
  const title = make("h2", row.state === "captioned" && row.caption ? "" : "no", visible(row.caption) || "No caption");
  title.id = "detail-caption";
  $("detail-image").replaceChildren(preview(row) ?? make("div", "blank", "No preview"), make("p", "file", visible(row.path)));
  $("detail-text").replaceChildren(
    ...row.state === "failed" ? [note("failed", visible(row.error))] : [],
    ...row.state === "withheld" ? [note("withheld", "the confidence of the caption is below the limit that was set.")] : [],
    ...row.warning ? [note("warned", visible(row.warning))] : [],
    title, ...row.state === "failed" && row.percent < 0 ? [] : [confidence(row)],
    ...section("Words and their probabilities", spoken(row.words)),
    ...section("Other captions", ranked(row.alternatives.map(other => [other.caption, other.confidence]))),
    ...section("Most similar training images", ranked(row.nearest)),
    ...section("", facts(row)).slice(1));
  $("detail-place").textContent = `${number(active + 1)} of ${number(shown.length)}`;
  $("previous").disabled = active === 0;
  $("next").disabled = active === shown.length - 1;
}

function open(place) {
  activate(place);
  fill(shown[active]);
  if (!detail.open) {
    detail.showModal();
    $("close").focus();
  }
  $("detail-body").scrollTop = 0;
  view.image = shown[active].number + 1;
  writeAddress();
}

function turnOver(by) {
  const place = active + by, button = document.activeElement;
  if (place < 0 || place >= shown.length) return;
  open(place);
  (button.disabled || !detail.contains(button) ? $("close") : button).focus();
}

detail.addEventListener("close", () => {
  view.image = 0;
  writeAddress();
  activate(active);
});
for (const dialog of [detail, keys]) dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
$("previous").addEventListener("click", () => turnOver(-1));
$("next").addEventListener("click", () => turnOver(1));
