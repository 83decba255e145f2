// What is shown: a moment, a record, the other end of a difference, a query. All of it is in the hash
// of the address, so a link leads to the same sight.

var current = { at: 0, record: -1, other: null, tab: "story", query: "" };
var terms = [], hashTimer = 0, saidOf = -1;

function set(changes) {
  current = Object.assign({}, current, changes);
  current.at = Math.max(first, Math.min(last, current.at));
  refresh();
}

function go(position) { set({ at: position }); }

function open(record) { set({ record: record, tab: "record" }); showRow(record); drawRows(current.at, record, open); }

function refresh() {
  terms = termsOf(current.query);
  drawMoment();
  drawLanes(current.at, current.tab === "diff" ? current.other : null);
  findRecords(current.at, terms, current.query);
  drawRows(current.at, current.record, open);
  drawPane();
  clearTimeout(hashTimer);
  hashTimer = setTimeout(writeHash, 150);
}

function drawMoment() {
  var at = current.at, time = wallAt(at);
  byId("time").textContent = timeOf(time);
  byId("day").textContent = dayOf(time);
  byId("place").textContent = at === 0 ? "before the first entry" : "entry " + at.toLocaleString("en") + " of " + last.toLocaleString("en");
  // The log's clock decides what is before and after. It differs where the device's was set back.
  if (Math.abs(clockAt(at) - time) > 1000) byId("place").append(el("span", "behind", " · the log's clock: " + timeOf(clockAt(at))));
  byId("zone").textContent = zoneName(time) + (zone === "reader" ? " (yours)" : "");
  var numbers = numbersAt(at);
  var number = function (id, value, tone) {
    byId(id).textContent = value.toLocaleString("en");
    byId(id).className = value ? tone : "zero";
  };
  number("pending", numbers.pending, "waiting");
  number("dead", numbers.dead, "bad");
  number("conflicts", numbers.conflicts, numbers.open ? "bad" : "lost");
  if (numbers.open) byId("conflicts").append(" (" + numbers.open + " open)");
  byId("state").textContent = "";
  byId("state").append(pill(localised(numbers.words, time), numbers.tone));
  byId("state").title = numbers.words;
  byId("back").disabled = byId("back-much").disabled = at === first;
  byId("on").disabled = byId("on-much").disabled = at === last;
  sayMoment(current);
}

// Shows the sentence of the moment.
async function sayMoment(view) {
  var at = paragraphAt(view.at);
  if (at < 0) { byId("said").textContent = ""; saidOf = -1; return; }
  if (at === saidOf) return;
  var told = (await deviceParagraphs(at, at + 1))[0];
  if (view !== current) return;
  saidOf = at;
  byId("said").textContent = localised(told[3], wallAt(told[0]));
  byId("said").title = byId("said").textContent;
}

function drawPane() {
  ["story", "record", "diff"].forEach(function (tab) {
    byId("tab-" + tab).setAttribute("aria-selected", current.tab === tab);
  });
  byId("tab-record").disabled = current.record < 0;
  byId("tab-record").textContent = current.record < 0 ? "Record" : nameOf(current.record);
  if (current.tab === "record" && current.record >= 0) showRecord(current, current.record);
  else if (current.tab === "diff" && current.other !== null) showDifference(current, current.other, open);
  else showDevice(current, open);
}

// Goes to the next or the previous paragraph of at least this weight.
function step(direction, weight) {
  var at = paragraphAt(current.at), story = page.story;
  if (direction < 0 && at >= 0 && story.to[at] >= current.at) at--;
  if (direction > 0) at++;
  while (at >= 0 && at < story.from.length && story.weight[at] < weight) at += direction;
  if (at >= 0 && at < story.from.length) go(Math.min(last, story.to[at]));
  else if (weight === 0) go(direction < 0 ? first : last);
}

// Goes to the beginning of the next day, or of the day before.
function stepDay(direction) {
  var day = dateOf(clockAt(current.at)), at = current.at;
  while (at + direction >= first + 1 && at + direction <= last && dateOf(clockAt(at)) === day) at += direction;
  go(at);
}

function choose(direction) {
  if (table.records.length === 0) return;
  var at = table.records.indexOf(current.record) + direction;
  open(table.records[Math.max(0, Math.min(table.records.length - 1, at))]);
}

function nextZone() {
  var zones = page.about.offset === null ? ["device", "reader"] : ["device", "utc", "reader"];
  zone = zones[(zones.indexOf(zone) + 1) % zones.length];
  redrawLanes();
  saidOf = -1;
  pane.shown = "";
  refresh();
}

function mark() { set({ other: current.at, tab: "diff" }); }

var KEYS = [
  ["← →", "one entry"], ["shift ← →", "one exchange, or one edit"], ["[ ]", "one day"],
  ["home end", "the beginning, the end"], ["n p", "the next or the previous conflict or failure"],
  ["↑ ↓", "the records of the table"], ["enter", "read the open record"], ["esc", "close what is open"],
  ["/", "search"], ["d", "put one end of a difference here"], ["t", "another zone for times"], ["?", "this help"]];
var TERMS = [
  ["mueller", "a text in a field or an id"], ["stage:won", "a field with a text"], ["is:synced", "a state, in its words"],
  ["by:ann", "edited on this device by ann"], ["type:lead", "a type"], ["-is:synced", "all that are not"]];

function fillHelp() {
  var help = byId("help");
  [["Keys", KEYS], ["Search", TERMS]].forEach(function (part) {
    help.append(el("h2", "", part[0]));
    var list = el("dl");
    part[1].forEach(function (row) { list.append(el("dt", "", row[0]), el("dd", "", row[1])); });
    help.append(list);
  });
  help.append(el("p", "quiet", "The table shows the records as the app read them at the moment. The address of this page names what you see: send it with the file. Nothing on this page leaves it."));
  var close = el("button", "", "Close");
  close.addEventListener("click", function () { help.close(); });
  help.append(close);
  help.addEventListener("click", function (event) { if (event.target === help) help.close(); });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  var isTyping = event.target === byId("search") || event.target.tagName === "SELECT";
  if (event.key === "Escape") {
    if (isTyping) { byId("search").value = ""; byId("search").blur(); set({ query: "" }); }
    else if (current.tab === "diff") set({ tab: current.record < 0 ? "story" : "record", other: null });
    else set({ tab: "story", record: -1 });
    return;
  }
  if (isTyping) { if (event.key === "Enter") byId("search").blur(); return; }
  var actions = {
    ArrowLeft: function () { if (event.shiftKey) step(-1, 0); else go(current.at - 1); },
    ArrowRight: function () { if (event.shiftKey) step(1, 0); else go(current.at + 1); },
    ArrowUp: function () { choose(-1); }, ArrowDown: function () { choose(1); },
    Home: function () { go(first); }, End: function () { go(last); },
    "[": function () { stepDay(-1); }, "]": function () { stepDay(1); },
    n: function () { step(1, 2); }, p: function () { step(-1, 2); },
    "/": function () { byId("search").focus(); byId("search").select(); },
    d: mark, t: nextZone, "?": function () { byId("help").showModal(); } };
  if (event.key === "Enter" && event.target.tagName !== "BUTTON" && current.record >= 0) byId("pane").focus();
  else if (Object.hasOwn(actions, event.key)) actions[event.key]();
  else return;
  event.preventDefault();
}

function writeHash() {
  var parts = ["at=" + current.at];
  if (current.record >= 0) parts.push("record=" + page.records[current.record].slice(0, 2).map(function (part, at) {
    return encodeURIComponent(at === 0 ? page.types[part] : part);
  }).join("/"));
  if (current.tab === "diff") parts.push("from=" + current.other);
  if (current.query) parts.push("q=" + encodeURIComponent(current.query));
  try { history.replaceState(null, "", "#" + parts.join("&")); } catch (refused) { /* The address stays as it is. */ }
}

function readHash() {
  var found = { at: last, record: -1, other: null, tab: "story", query: "" };
  location.hash.slice(1).split("&").forEach(function (part) {
    var at = part.indexOf("="), name = part.slice(0, at), text = part.slice(at + 1);
    try { text = name === "record" ? text.split("/").map(decodeURIComponent).join("/") : decodeURIComponent(text); } catch (wrong) { return; }
    if (name === "at" && /^\d+$/.test(text)) found.at = +text;
    if (name === "from" && /^\d+$/.test(text)) { found.other = Math.max(first, Math.min(last, +text)); found.tab = "diff"; }
    if (name === "q") found.query = text;
    if (name === "record") {
      found.record = page.records.findIndex(function (one, record) { return nameOf(record) === text; });
      if (found.record >= 0 && found.tab === "story") found.tab = "record";
    }
  });
  byId("search").value = found.query;
  set(found);
}

function listen() {
  document.addEventListener("keydown", onKey);
  byId("back").addEventListener("click", function () { go(current.at - 1); });
  byId("on").addEventListener("click", function () { go(current.at + 1); });
  byId("back-much").addEventListener("click", function () { step(-1, 0); });
  byId("on-much").addEventListener("click", function () { step(1, 0); });
  byId("zone").addEventListener("click", nextZone);
  byId("help-open").addEventListener("click", function () { byId("help").showModal(); });
  byId("tab-story").addEventListener("click", function () { set({ tab: "story" }); });
  byId("tab-record").addEventListener("click", function () { set({ tab: "record" }); });
  byId("tab-diff").addEventListener("click", function () { set({ tab: "diff", other: current.other === null ? first : current.other }); });
  byId("type").addEventListener("change", function () { chooseType(+byId("type").value); byId("table").scrollTop = 0; refresh(); });
  byId("by-time").addEventListener("change", function () { lanes.byTime = byId("by-time").checked; redrawLanes(); refresh(); });
  byId("search").addEventListener("input", function () { byId("table").scrollTop = 0; set({ query: byId("search").value }); });
  byId("table").addEventListener("scroll", function () { drawRows(current.at, current.record, open); });
  byId("pane").addEventListener("click", function (event) {
    var told = event.target.closest && event.target.classList.contains("go") && event.target.closest(".told");
    if (told) go(Math.min(last, +told.dataset.to));
  });
  var slider = byId("slider"), isHeld = false;
  var seek = function (event) {
    var box = slider.getBoundingClientRect();
    go(positionAt(Math.max(0, Math.min(1, (event.clientX - box.left) / (box.width - 1)))));
  };
  slider.addEventListener("pointerdown", function (event) { isHeld = true; slider.setPointerCapture(event.pointerId); seek(event); });
  slider.addEventListener("pointermove", function (event) { if (isHeld) seek(event); });
  ["pointerup", "pointercancel"].forEach(function (name) { slider.addEventListener(name, function () { isHeld = false; }); });
  window.addEventListener("resize", function () { table.row = 0; redrawLanes(); refresh(); });
  window.addEventListener("hashchange", readHash);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { redrawLanes(); refresh(); });
}

function fillAbout() {
  var about = page.about, parts = [];
  document.title = about.name + " · fieldbook";
  byId("name").textContent = about.name;
  if (about.app) parts.push(about.app);
  if (about.system) parts.push(about.system);
  if (about.device) parts.push("device " + about.device.slice(0, 8));
  parts.push(about.anchored ? "the server confirmed up to entry " + about.anchored + ", according to this file" : "no entry confirmed by a server");
  byId("about").textContent = parts.join(" · ");
  byId("about").title = about.device ? "device " + about.device : "";
  byId("made").textContent = "nothing on this page leaves it · fieldbook " + about.program;
  if (about.lacking.length) byId("made").textContent = "rules of the app that were not run: " + about.lacking.join(", ") + " · " + byId("made").textContent;
}

load().then(function () {
  byId("app").hidden = false;
  byId("loading").remove();
  fillAbout();
  fillHelp();
  fillTypes();
  chooseType(table.type);
  listen();
  readHash();
  // For tests: what the page knows at a position, and where it is.
  window.fieldbook = { ready: true, first: first, last: last, go: go, open: open, names: nameOf,
    records: function (position) { return recordsAt(position, -1, []); },
    fields: function (record, position) {
      var found = Object.create(null), fields = image(record, false, position);
      if (fields) fields.forEach(function (value, field) { found[page.fields[field]] = value; });
      return fields ? found : null;
    },
    state: stateAt, numbers: numbersAt, story: recordStory, current: function () { return current; } };
}).catch(function (fault) {
  byId("loading").textContent = "The data of this page cannot be read: " + fault.message + ". Make it anew with: fieldbook view BOOK -o FILE";
  byId("loading").className = "fault";
});
