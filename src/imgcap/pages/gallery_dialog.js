// The detail dialog.

const section = (title, list) => list.childElementCount ? [make("h3", "", title), list] : [];
const ranked = pairs => make("ul", "ranked", ...pairs.map(([name, value]) => make("li", "", make("span", "", visible(name)), make("b", "", value == null ? "" : share(value)))));
const OUTCOMES = { accepted: "Checked", corrected: "Corrected", skipped: "Skipped: this image is not saved" };
const note = (kind, text) => make("p", `note ${kind}`, icon(kind), make("span", "", make("strong", "", NAMES[kind], ": "), text));

/** Other captions of the image, as buttons that take them. */
function others(alternatives) {
  return make("ul", "ranked others", ...alternatives.map(({ caption, confidence: sure }, place) => {
    const button = make("button", "", make("span", "", visible(caption)), make("b", "", sure == null ? "" : share(sure)), place < 9 ? make("kbd", "", place + 1) : null);
    button.type = "button";
    button.addEventListener("click", () => takeOther(place));
    return make("li", "", button);
  }));
}

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
  const editable = canCheck(row), title = $("detail-caption"), hasNone = row.state === "failed" && row.percent < 0;
  $("detail-image").replaceChildren(preview(row) ?? make("div", "blank", "No preview"), make("p", "file", visible(row.path)));
  $("detail-notes").replaceChildren(
    ...row.state === "failed" ? [note("failed", visible(row.error))] : [],
    ...row.state === "withheld" ? [note("withheld", "the confidence of the caption is below the limit that was set.")] : [],
    ...row.warning ? [note("warned", visible(row.warning))] : []);
  edited = editable ? row : null;
  $("editor").hidden = !editable;
  title.hidden = editable;
  title.textContent = visible(row.caption) || "No caption";
  $("edit").value = clean(row.caption);
  $("verdict").className = row.verdict;
  $("verdict").replaceChildren(...row.verdict ? [icon(row.verdict), make("span", "", OUTCOMES[row.verdict], row.verdict === "corrected" && row.given ? visible(`; the model wrote: ${row.given}`) : "")] : ["Not yet checked"]);
  $("detail-more").replaceChildren(
    ...hasNone || row.verdict === "corrected" ? [] : [confidence(row)],
    ...section("Words and their probabilities", spoken(row.words)),
    ...section("Other captions", editable ? others(row.alternatives) : ranked(row.alternatives.map(other => [other.caption, other.confidence]))),
    ...section("Most similar images in the model's training data", ranked(row.nearest)),
    ...section("", facts(row)).slice(1));
  $("detail-place").textContent = `Image ${number(active + 1)} of ${number(shown.length)}`;
  $("previous").disabled = active === 0;
  $("next").disabled = active === shown.length - 1;
  $("accept").disabled = $("skip-image").disabled = !editable || !storageKey;
}

function open(place) {
  if (place !== active) keepDraft();
  activate(place);
  fill(shown[active]);
  if (!detail.open) detail.showModal();
  if (!detail.contains(document.activeElement) || document.activeElement.matches(":disabled, textarea, #close")) {
    ($("accept").disabled ? $("close") : $("accept")).focus();
  }
  $("detail-body").scrollTop = 0;
  view.image = shown[active].number + 1;
  writeAddress();
}

function turnOver(by) {
  const place = active + by;
  if (place < 0 || place >= shown.length) return;
  open(place);
  announce(sentence(shown[active]));
}

detail.addEventListener("close", () => {
  keepDraft();
  edited = null;
  view.image = 0;
  if (view.state === "unchecked" || view.state === "checked") select(shown[active]);
  writeAddress();
  activate(active);
});
for (const dialog of [detail, keys, saving]) dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
$("previous").addEventListener("click", () => turnOver(-1));
$("next").addEventListener("click", () => turnOver(1));
