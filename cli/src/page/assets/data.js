// The data of the page, and its values at a position. A position is the number of an entry. The
// program has folded the log: a value at a position is that of the last row at or before it.

var page, first, last;
var walls = [], clocks = [];
var loaded = new Map();

// Returns the data of a block.
async function decode(number) {
  var text = document.getElementById("fieldbook-data-" + number).textContent;
  var bytes;
  if (Uint8Array.fromBase64) {
    bytes = Uint8Array.fromBase64(text);
  } else {
    var raw = atob(text);
    bytes = new Uint8Array(raw.length);
    for (var at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  }
  var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

// Returns a block of stories. Few are kept: each is decoded in some milliseconds.
function block(number) {
  if (!loaded.has(number)) {
    if (loaded.size > 12) loaded.delete(loaded.keys().next().value);
    loaded.set(number, decode(number));
  }
  return loaded.get(number);
}

async function load() {
  page = await decode(0);
  first = page.about.first;
  last = first + page.entries.wall.length;
  var wall = 0, clock = 0;
  for (var at = 0; at < page.entries.wall.length; at++) {
    walls.push((wall += page.entries.wall[at]));
    clocks.push((clock += page.entries.clock[at]));
  }
}

// Returns the place of the last row at or before a position, or -1. Rows are `stride` items long.
function rowAt(rows, stride, position) {
  var from = 0, to = rows.length / stride;
  while (from < to) {
    var middle = (from + to) >> 1;
    if (rows[middle * stride] <= position) from = middle + 1; else to = middle;
  }
  return from - 1;
}

// Returns the time of an entry. The beginning of the log has the time of its first entry.
function timeAt(times, position) {
  if (!times.length) return 0;
  return times[Math.max(0, Math.min(times.length - 1, position - first - 1))];
}

// By the device's clock, and by the log's.
function wallAt(position) { return timeAt(walls, position); }
function clockAt(position) { return timeAt(clocks, position); }

function nameOf(record) {
  return page.types[page.records[record][0]] + "/" + page.records[record][1];
}

// Returns whether the app reads a record at a position.
function isThere(record, position) {
  var rows = page.records[record][2];
  var row = rowAt(rows, 2, position);
  return row >= 0 && rows[row * 2 + 1] !== null;
}

// Returns the fields of a record by their numbers, as the app reads them or as the server confirmed
// them; none if there is no record.
function image(record, isServer, position) {
  var rows = page.records[record][isServer ? 3 : 2];
  var end = rowAt(rows, 2, position), begin = end;
  if (end < 0 || rows[end * 2 + 1] === null) return null;
  while (begin > 0 && rows[begin * 2 - 1] !== null) begin--;
  var fields = new Map();
  for (var row = begin; row <= end; row++) {
    var patch = rows[row * 2 + 1];
    for (var at = 0; at < patch.length; at++) {
      if (patch[at] < 0) fields.delete(-1 - patch[at]);
      else { fields.set(patch[at], patch[at + 1]); at++; }
    }
  }
  return fields;
}

// Returns the state of a record at a position.
function stateAt(record, position) {
  var rows = page.records[record][4], row = rowAt(rows, 5, position);
  if (row < 0) return null;
  var at = row * 5, state = page.states[rows[at + 1]];
  return { since: rows[at], words: state[0], name: state[1], tone: state[2], version: rows[at + 2],
    pending: rows[at + 3], why: rows[at + 4] - 1 };
}

// Returns the numbers of the book at a position.
function numbersAt(position) {
  var row = rowAt(page.numbers, 6, position);
  if (row < 0) return { words: "", name: "", tone: "plain", pending: 0, dead: 0, conflicts: 0, open: 0 };
  var at = row * 6, state = page.overall[page.numbers[at + 1]];
  return { words: state[0], name: state[1], tone: state[2], pending: page.numbers[at + 2],
    dead: page.numbers[at + 3], conflicts: page.numbers[at + 4], open: page.numbers[at + 5] };
}

// Returns whether something of a record changed with an entry.
function changedAt(record, position) {
  var one = page.records[record];
  return [[one[2], 2], [one[3], 2], [one[4], 5]].some(function (rows) {
    var row = rowAt(rows[0], rows[1], position);
    return row >= 0 && rows[0][row * rows[1]] === position && position > first;
  });
}

function sameValue(one, other) {
  return one === other || (one !== undefined && other !== undefined && JSON.stringify(one) === JSON.stringify(other));
}

// Returns a value as text: a string as it is, JSON, or the beginning of a long value.
function shownValue(value) {
  if (value === undefined) return "–";
  if (typeof value === "string") return value === "" ? "\u201c\u201d" : value;
  if (value.length === 1) return value[0];
  return value[0] + "… (" + value[1].toLocaleString("en") + " characters, hash " + value[2] + ")";
}

// Returns the paragraph of the device's story at a position, or the one before; -1 for none.
function paragraphAt(position) {
  return rowAt(page.story.from, 1, position);
}

async function deviceParagraphs(from, to) {
  var found = [];
  for (var at = from; at < to; at++) {
    var stories = await block(1 + Math.floor(at / page.story.block));
    found.push(stories[at % page.story.block]);
  }
  return found;
}

// Returns the story of a record: paragraphs, explanations, what helps now.
async function recordStory(record) {
  var number = rowAt(page.starts, 1, record);
  var stories = await block(1 + page.story.blocks + number);
  return stories[record - page.starts[number]];
}
