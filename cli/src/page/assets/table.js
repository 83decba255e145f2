// The table of the records of a moment. Only the rows that are to be seen are elements.

var table = { records: [], type: -1, columns: [], row: 0, empty: "" };

// Returns the fields of a type, those of most records first; none for all types together.
function columnsOf(type) {
  if (type < 0) return [];
  var counts = new Map();
  page.records.forEach(function (record) {
    if (record[0] !== type) return;
    var had = new Set();
    for (var row = 1; row < record[2].length; row += 2) {
      var patch = record[2][row] || [];
      for (var at = 0; at < patch.length; at++) if (patch[at] >= 0) { had.add(patch[at]); at++; }
    }
    had.forEach(function (field) { counts.set(field, (counts.get(field) || 0) + 1); });
  });
  var fields = Array.from(counts.keys());
  fields.sort(function (one, other) { return counts.get(other) - counts.get(one) || one - other; });
  return fields.slice(0, 8);
}

function fillTypes() {
  var select = byId("type");
  if (page.types.length !== 1) select.append(new Option("all types", "-1"));
  page.types.forEach(function (type, number) { select.append(new Option(type, "" + number)); });
  select.hidden = page.types.length < 2;
  table.type = +select.value;
}

function chooseType(type) {
  table.type = type;
  table.columns = columnsOf(type);
  var head = byId("head");
  head.textContent = "";
  ["record", "state"].forEach(function (name) { head.append(el("span", name, name)); });
  if (type < 0) head.append(el("span", "rest", "fields"));
  table.columns.forEach(function (field) { head.append(el("span", "cell", page.fields[field])); });
  byId("table").style.setProperty("--columns", Math.max(1, table.columns.length));
  byId("table").classList.toggle("mixed", type < 0);
  var longest = 0;
  page.records.forEach(function (record, number) {
    if (type < 0 || record[0] === type) longest = Math.max(longest, type < 0 ? nameOf(number).length : record[1].length);
  });
  byId("table").style.setProperty("--id", Math.max(7, Math.min(26, longest + 2)) + "ch");
}

// Finds the records of a moment.
function findRecords(position, terms, query) {
  table.records = recordsAt(position, table.type, terms);
  table.empty = query ? "No record fits the search." : "No record at this moment.";
  var count = counted(table.records.length, "record");
  byId("count").textContent = query ? count + " found" : count + (position === last ? "" : " then");
  byId("rows").style.height = table.records.length * rowHeight() + "px";
}

function rowHeight() {
  if (!table.row) table.row = parseFloat(getComputedStyle(byId("table")).getPropertyValue("--row")) || 34;
  return table.row;
}

// Makes the rows that are to be seen.
function drawRows(position, open, onOpen) {
  var box = byId("table"), rows = byId("rows"), height = rowHeight();
  var from = Math.max(0, Math.floor(box.scrollTop / height) - 4);
  var to = Math.min(table.records.length, from + Math.ceil(box.clientHeight / height) + 10);
  rows.textContent = "";
  for (var at = from; at < to; at++) rows.append(rowOf(table.records[at], at, position, open, onOpen));
  if (table.records.length === 0) rows.append(el("p", "empty", table.empty));
}

function rowOf(record, at, position, open, onOpen) {
  var state = stateAt(record, position), fields = image(record, false, position);
  var made = el("div", "row" + (record === open ? " open" : "") + (changedAt(record, position) ? " fresh" : "") +
    (fields ? "" : " gone"));
  made.setAttribute("role", "row");
  made.style.top = at * rowHeight() + "px";
  made.dataset.record = nameOf(record);
  made.append(el("span", "record", table.type < 0 ? nameOf(record) : page.records[record][1]));
  var words = state ? localised(state.words, wallAt(position)) : "";
  made.append(pill(fields ? words : words + ", deleted", state ? state.tone : "plain"));
  made.children[1].classList.add("state");
  made.children[1].title = words;
  var rest = el("span", "rest");
  if (fields) {
    fields.forEach(function (value, field) {
      if (rest.childElementCount < 12) rest.append(el("b", "", page.fields[field]), " " + short(value) + "  ");
    });
  }
  made.append(rest);
  table.columns.forEach(function (field) {
    var value = fields ? fields.get(field) : undefined;
    made.append(el("span", "cell" + (value === undefined ? " none" : ""), value === undefined ? "" : short(value)));
  });
  made.addEventListener("click", function () { onOpen(record); });
  return made;
}

function short(value) {
  var text = shownValue(value);
  return text.length > 200 ? text.slice(0, 200) + "…" : text;
}

// Scrolls the open record into sight, if it is in the table.
function showRow(record) {
  var at = table.records.indexOf(record), box = byId("table"), height = rowHeight();
  if (at < 0) return;
  var head = byId("head").offsetHeight, top = at * height;
  if (top < box.scrollTop) box.scrollTop = top;
  if (top + height + head > box.scrollTop + box.clientHeight) box.scrollTop = top + height + head - box.clientHeight;
}
