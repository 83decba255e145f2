// The panes beside the table: the story of the device, one record, the difference of two moments.

// How many paragraphs are elements at once, on each side of the moment.
var NEAR = 60;
var pane = { shown: "", more: 0 };

// Notes what the pane is to show. Returns false if it shows that already.
function describe(key) {
  if (pane.shown === key) return false;
  pane.shown = key;
  pane.more = 0;
  return true;
}

// Shows the story of the device around a moment.
async function showDevice(view, onOpen) {
  var into = byId("pane"), at = paragraphAt(view.at);
  var near = NEAR + pane.more, all = page.story.from.length;
  var from = Math.max(0, at - near), to = Math.min(all, at + 1 + near);
  var key = "story:" + from + ":" + to + ":" + zone;
  if (pane.shown !== key) {
    var told = await deviceParagraphs(from, to);
    if (view !== current) return;
    var more = pane.more;
    describe(key);
    pane.more = more;
    into.textContent = "";
    if (from > 0) into.append(moreOf(from, "earlier"));
    fillStory(into, told, onOpen);
    if (to < all) into.append(moreOf(all - to, "later"));
    if (all === 0) into.append(el("p", "empty", "Nothing happened."));
  }
  keepLit(into, light(into, view.at));
}

function moreOf(count, which) {
  var made = el("button", "more", counted(count, which + " paragraph"));
  made.addEventListener("click", function () { pane.more += 200; pane.shown = ""; refresh(); });
  return made;
}

// Scrolls the lit paragraph into the middle of the pane, if it is out of sight.
function keepLit(into, lit) {
  if (!lit) { into.scrollTop = 0; return; }
  var box = into.getBoundingClientRect(), own = lit.getBoundingClientRect();
  if (own.top < box.top || own.bottom > box.bottom) {
    into.scrollTop += own.top - box.top - (box.height - own.height) / 2;
  }
}

// Shows a record: its state and why, its fields then, at the server and now, and its story.
async function showRecord(view, record) {
  var into = byId("pane"), story = await recordStory(record);
  if (view !== current) return;
  var key = "record:" + record + ":" + zone;
  if (describe(key)) {
    into.textContent = "";
    into.append(el("div", "now"), el("h3", "chapter", "What happened to it"), el("div", "story"));
    fillStory(into.querySelector(".story"), story[0]);
    into.scrollTop = 0;
  }
  var now = into.querySelector(".now"), state = stateAt(record, view.at);
  now.textContent = "";
  var head = el("div", "title");
  head.append(el("h2", "", nameOf(record)));
  if (state) {
    var said = localised(state.words, wallAt(view.at));
    head.append(pill(isThere(record, view.at) ? said : said + ", deleted", state.tone));
  }
  now.append(head);
  now.append(el("p", "quiet", state ? stateLine(state) : "This device does not know it yet at this moment."));
  if (state && state.why >= 0) {
    var why = el("div", "why");
    story[1][state.why].split("\n").forEach(function (line) { why.append(el("p", "", localised(line, wallAt(state.since)))); });
    if (state.since !== view.at && view.at !== last) why.append(el("p", "quiet", "As of entry " + state.since + "."));
    if (view.at === last && story[2].length) {
      why.append(el("p", "what", "What to do:"), el("pre", "", story[2].join("\n")));
    }
    now.append(why);
  }
  now.append(fieldsOf(record, view.at));
  light(into, view.at);
}

function stateLine(state) {
  var parts = [state.version ? "version r" + state.version : "not at the server yet"];
  if (state.pending) parts.push(counted(state.pending, "change") + " not confirmed");
  parts.push("so since entry " + state.since);
  return parts.join(" · ");
}

// Returns the fields of a record: as the app read them, as the server had confirmed them, and now.
function fieldsOf(record, position) {
  var then = image(record, false, position), server = image(record, true, position);
  var before = position > first ? image(record, false, position - 1) : then;
  var now = position === last ? null : image(record, false, last) || new Map();
  var fields = new Set();
  [then, server, now].forEach(function (one) { if (one) one.forEach(function (value, field) { fields.add(field); }); });
  if (fields.size === 0) return el("p", "empty", "It has no fields at this moment.");
  var made = el("div", "fields" + (now ? " three" : ""));
  ["field", position === last ? "now" : "then", "server"].concat(now ? ["now"] : []).forEach(function (name) {
    made.append(el("span", "th", name));
  });
  var names = Array.from(fields);
  names.sort(function (one, other) { return page.fields[one] < page.fields[other] ? -1 : 1; });
  names.forEach(function (field) {
    var value = function (of) { return of ? of.get(field) : undefined; };
    made.append(el("span", "field", page.fields[field]));
    var fresh = !sameValue(value(then), value(before));
    made.append(cell(value(then), fresh ? " fresh" : ""));
    made.append(cell(value(server), sameValue(value(server), value(then)) ? " same" : " other"));
    if (now) made.append(cell(value(now), sameValue(value(now), value(then)) ? " same" : " other"));
  });
  return made;
}

function cell(value, name) {
  return el("span", "value" + name + (value === undefined ? " none" : ""), shownValue(value));
}

// Shows what differs between two moments.
function showDifference(view, other, onOpen) {
  var into = byId("pane"), from = Math.min(view.at, other), to = Math.max(view.at, other);
  if (!describe("diff:" + from + ":" + to + ":" + zone)) return;
  into.textContent = "";
  into.scrollTop = 0;
  into.append(el("div", "title"));
  into.firstChild.append(el("h2", "", "From entry " + from + " to entry " + to));
  if (from === to) {
    into.append(el("p", "quiet", "Both ends are this moment. Go to another one: the difference follows. d moves this end here."));
    return;
  }
  var said = function (position) { return dateOf(wallAt(position)) + " " + timeOf(wallAt(position)); };
  into.append(el("p", "quiet", said(from) + " → " + said(to) + " (" + zoneName(wallAt(to)) + ")"));
  var one = numbersAt(from), two = numbersAt(to), changed = [];
  [["pending", "pending"], ["dead", "refused"], ["conflicts", "conflicts"], ["open", "open conflicts"]].forEach(function (pair) {
    if (one[pair[0]] !== two[pair[0]]) changed.push(pair[1] + " " + one[pair[0]] + " → " + two[pair[0]]);
  });
  if (changed.length) into.append(el("p", "", changed.join(" · ")));
  var count = 0, more = 0;
  for (var record = 0; record < page.records.length; record++) {
    var rows = differing(record, from, to);
    if (rows.length === 0) continue;
    count++;
    if (count > 200) { more++; continue; }
    var made = el("div", "differs");
    made.append(opener(record, onOpen));
    rows.forEach(function (row) {
      made.append(el("span", "field", row[0]), el("span", "value old" + (row[1] === "–" ? " none" : ""), row[1]), el("span", "value new" + (row[2] === "–" ? " none" : ""), row[2]));
    });
    into.append(made);
  }
  if (count === 0) into.append(el("p", "empty", "No record differs."));
  if (more) into.append(el("p", "quiet", "And " + counted(more, "more record") + ": choose moments closer together."));
}

// Returns the fields, and the state, in which a record differs.
function differing(record, from, to) {
  var touched = page.records[record].slice(2, 5).some(function (rows, which) {
    var stride = which === 2 ? 5 : 2;
    return rowAt(rows, stride, from) !== rowAt(rows, stride, to);
  });
  if (!touched) return [];
  var before = image(record, false, from) || new Map(), after = image(record, false, to) || new Map(), found = [];
  new Set(Array.from(before.keys()).concat(Array.from(after.keys()))).forEach(function (field) {
    if (!sameValue(before.get(field), after.get(field))) {
      found.push([page.fields[field], shownValue(before.get(field)), shownValue(after.get(field))]);
    }
  });
  found.sort(function (one, other) { return one[0] < other[0] ? -1 : 1; });
  var words = function (position) {
    var state = stateAt(record, position);
    return state ? localised(state.words, wallAt(position)) : "–";
  };
  if (words(from) !== words(to)) found.push(["(status)", words(from), words(to)]);
  return found;
}
