// Elements, times and numbers. Text becomes text nodes only.

var DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
var MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September",
  "October", "November", "December"];
var zone = "device";
// A paragraph of more characters is shown by its beginning.
var LONG = 480;

function byId(id) { return document.getElementById(id); }

function el(tag, name, text) {
  var made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function two(number) { return (number < 10 ? "0" : "") + number; }

// Returns the offset of the shown zone from UTC, in minutes.
function offsetAt(time) {
  if (zone === "reader") return -new Date(time).getTimezoneOffset();
  return zone === "device" && page.about.offset !== null ? page.about.offset : 0;
}

function zoneName(time) {
  var offset = offsetAt(time), size = Math.abs(offset);
  if (offset === 0) return "UTC";
  return "UTC" + (offset < 0 ? "−" : "+") + two(Math.floor(size / 60)) + ":" + two(size % 60);
}

function local(time) { return new Date(time + offsetAt(time) * 60000); }

function timeOf(time) {
  var at = local(time);
  return two(at.getUTCHours()) + ":" + two(at.getUTCMinutes()) + ":" + two(at.getUTCSeconds());
}

function dateOf(time) {
  var at = local(time);
  return at.getUTCFullYear() + "-" + two(at.getUTCMonth() + 1) + "-" + two(at.getUTCDate());
}

function dayOf(time) {
  var at = local(time);
  return DAYS[at.getUTCDay()] + " " + at.getUTCDate() + " " + MONTHS[at.getUTCMonth()] + " " + at.getUTCFullYear();
}

// Returns a sentence of the program with its times in the shown zone: as times of day if they are of
// the same day as `at`.
function localised(sentence, at) {
  return sentence.split(" ").map(function (word) {
    var found = word.match(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/);
    if (!found) return word;
    var time = Date.parse(found[0]);
    var said = dateOf(time) === dateOf(at) ? timeOf(time) : dateOf(time) + " " + timeOf(time);
    return word.replace(found[0], function () { return said; });
  }).join(" ");
}

function counted(number, one, many) {
  return number.toLocaleString("en") + " " + (number === 1 ? one : many || one + "s");
}

// Returns a state with its dot.
function pill(words, tone) {
  var made = el("span", "pill " + tone);
  made.append(el("i"), el("span", "", words));
  return made;
}

// Returns a paragraph of a story: its time, its words, its entries.
function paragraph(told, onOpen) {
  var from = told[0], to = told[1], weight = told[2];
  var made = el("div", "told" + (weight > 1 ? " w" + weight : ""));
  made.dataset.from = from;
  made.dataset.to = to;
  var go = el("button", "go", timeOf(wallAt(from)));
  go.title = "To this moment";
  var words = el("p");
  words.append(localised(told[3], wallAt(from)) + " ", el("span", "seqs", from === to ? "" + from : from + "–" + to));
  made.append(go, words);
  if (told[3].length > LONG) {
    words.className = "long";
    var all = el("button", "chip", "all of it");
    all.addEventListener("click", function () {
      all.textContent = words.classList.toggle("long") ? "all of it" : "less";
    });
    made.append(all);
  }
  if (told[5] && told[5].length) {
    var chips = el("div", "chips");
    told[5].forEach(function (record) { chips.append(opener(record, onOpen)); });
    made.append(chips);
  }
  return made;
}

function opener(record, onOpen) {
  var made = el("button", "chip", nameOf(record));
  made.addEventListener("click", function () { onOpen(record); });
  return made;
}

// Fills an element with paragraphs, with the days and the gaps between them.
function fillStory(into, told, onOpen) {
  var day = "";
  told.forEach(function (one) {
    var today = dayOf(wallAt(one[0]));
    if (today !== day) into.append(el("h3", "", today));
    else if (one[4]) into.append(el("p", "gap", one[4]));
    day = today;
    into.append(paragraph(one, onOpen));
  });
}

// Marks the paragraph of a position, and those after it.
function light(into, position) {
  var lit = null;
  into.querySelectorAll(".told").forEach(function (one) {
    var from = +one.dataset.from;
    one.classList.toggle("later", from > position);
    one.classList.remove("lit");
    if (from <= position) lit = one;
  });
  if (lit) lit.classList.add("lit");
  return lit;
}
