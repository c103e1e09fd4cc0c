// A file of captions: saved for `imgcap prepare` and `imgcap apply`, and read back into the page.

const saving = $("saving");
const isChosen = (row, all) => row.verdict ? row.verdict !== "skipped" : all && canCheck(row) && row.original !== "";
const chosen = all => rows.filter(row => isChosen(row, all));
const saveAll = () => saving.querySelector("[value=all]").checked;

/** One line of the file. The keys are those of the rows of `imgcap caption`, and two more. */
function line(row) {
  const { path, verdict, original, given } = row;
  const caption = verdict ? row.caption : original;
  return JSON.stringify({ path, caption, checked: Boolean(verdict), ...verdict === "corrected" ? { corrected_from: given } : {} }) + "\n";
}

function fileName() {
  let name = location.pathname.split("/").pop();
  try { name = decodeURIComponent(name); } catch {} // a name that is not UTF-8
  return `${name.replace(/\.x?html?$/i, "") || "captions"}-${saveAll() ? "all" : "checked"}.jsonl`;
}

/** The folder that all images are in, as a shell takes it. */
function folder() {
  let common = null;
  for (const { path } of rows) {
    const folders = path.split(/[/\\]/).slice(0, -1);
    common = common ? common.slice(0, common.findIndex((name, i) => name !== folders[i]) >>> 0) : folders;
  }
  return quoted(common?.length ? common.join("/").replace(/^-/, "./-") || "/" : ".");
}

/** The words of commands, each of which stays on its line. */
const unbroken = text => text.split(/([ \n])/).map(part => part.trim() ? make("span", "", part) : part);

const quoted = text => /^[\p{L}\p{N}_./:~-]+$/u.test(text) ? text : `'${visible(text).replaceAll("'", "'\\''")}'`;

function openSaving(said = "") {
  if (!storageKey || saving.open) return;
  keepDraft();
  if (detail.open) fill(shown[active]);
  $("written").textContent = said;
  $("then").hidden = true;
  $("kept").textContent = isKept ? "This browser keeps your work too: close the page and continue later, here."
    : "This browser does not keep your work: save it before you close the page, and continue from the file.";
  showChoice();
  saving.showModal();
  ($("write").disabled ? saving.querySelector(":checked") : $("write")).focus();
}

function showChoice() {
  for (const what of ["checked", "all"]) $(`what-${what}`).textContent = number(chosen(what === "all").length);
  $("file-name").textContent = fileName();
  $("write").disabled = !chosen(saveAll()).length;
}

function write() {
  const name = fileName(), list = chosen(saveAll()), link = make("a");
  link.href = URL.createObjectURL(new Blob(list.map(line), { type: "application/x-ndjson" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  isUnsaved = false;
  $("written").textContent = `Saved ${number(list.length)} ${list.length === 1 ? "caption" : "captions"} as ${name}, among your downloads.`;
  const model = document.body.dataset.model, given = option => model === "default" ? "" : ` ${option} ${quoted(model)}`;
  $("commands").replaceChildren(...unbroken(`imgcap prepare --images ${folder()} --captions ${quoted(name)} -o prepared${given("--encoder")}\nimgcap train prepared -o my-model${given("--start-from")}`));
  $("commands-apply").replaceChildren(...unbroken(`imgcap apply ${quoted(name)} --write-metadata`));
  $("then").hidden = false;
}

/** Decide what a file that this page saved has decided, as one step. */
function readBack(text, name) {
  const byPath = new Map(), pairs = [];
  for (const row of rows) byPath.set(row.path, [...byPath.get(row.path) ?? [], row]);
  let unknown = 0;
  for (const each of text.split("\n").filter(part => part.trim())) {
    let saved = null;
    try { saved = JSON.parse(each); } catch {}
    const caption = typeof saved?.caption === "string" ? clean(saved.caption) : "";
    const named = (byPath.get(saved?.path) ?? []).filter(canCheck);
    if (!caption || !named.length) unknown++;
    else if (saved.checked !== false) pairs.push(...named.map(row => [row, caption]));
  }
  if (pairs.length) decide(pairs);
  const lines = `${number(unknown)} ${unknown === 1 ? "line has" : "lines have"}`;
  $("written").textContent = `Read ${number(pairs.length)} ${pairs.length === 1 ? "caption" : "captions"} from ${name}${unknown ? `; ${lines} no caption for an image of this page` : ""}.`;
  showChoice();
  if (detail.open) fill(shown[active]);
}

$("save").addEventListener("click", () => openSaving());
$("write").addEventListener("click", write);
$("what").addEventListener("change", showChoice);
$("earlier").addEventListener("change", async event => {
  const [file] = event.target.files;
  if (file) readBack(await file.text(), file.name);
  event.target.value = "";
});
