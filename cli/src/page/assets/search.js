// Search among the records of a moment: text, `field:value`, `type:lead`, `is:synced`, `by:ann`, each
// with `-` before it for those that are not.

var texts = new Map();

// Returns the terms of a query. Quotes keep a term with blanks together.
function termsOf(query) {
  var found = query.match(/-?(?:[^\s":]+:)?"[^"]*"?|\S+/g) || [];
  return found.map(function (term) {
    var not = term.length > 1 && term[0] === "-";
    if (not) term = term.slice(1);
    var colon = term.indexOf(":");
    var field = colon > 0 ? term.slice(0, colon).toLowerCase() : "";
    var text = (colon > 0 ? term.slice(colon + 1) : term).replace(/^"|"$/g, "").toLowerCase();
    return { not: not, field: field, text: text };
  }).filter(function (term) { return term.text !== "" || term.field !== ""; });
}

// Returns the text of a record's fields in lower case. It is kept until another row counts.
function textOf(record, position) {
  var row = rowAt(page.records[record][2], 2, position), known = texts.get(record);
  if (known && known.row === row) return known;
  var fields = image(record, false, position) || new Map();
  known = { row: row, all: nameOf(record).toLowerCase(), each: new Map() };
  fields.forEach(function (value, field) {
    var text = shownValue(value).toLowerCase();
    known.each.set(page.fields[field].toLowerCase(), text);
    known.all += "\n" + text;
  });
  texts.set(record, known);
  return known;
}

function matches(record, position, terms) {
  return terms.every(function (term) { return holds(record, position, term) !== term.not; });
}

function holds(record, position, term) {
  if (term.field === "is") {
    var state = stateAt(record, position);
    var wanted = term.text.replace(/_/g, " ");
    return state !== null && (state.name.replace(/_/g, " ") === wanted || state.words.toLowerCase().includes(wanted));
  }
  if (term.field === "type") return page.types[page.records[record][0]].toLowerCase() === term.text;
  if (term.field === "by") {
    var edits = page.records[record][5];
    for (var at = 0; at < edits.length && edits[at] <= position; at += 2) {
      if (page.actors[edits[at + 1]].toLowerCase() === term.text) return true;
    }
    return false;
  }
  var known = textOf(record, position);
  if (!term.field) return known.all.includes(term.text);
  var value = known.each.get(term.field);
  if (value !== undefined) return value.includes(term.text);
  // No field has this name: the colon may be part of the text, as in a time.
  return known.all.includes(term.field + ":" + term.text);
}

// Returns the records of a moment that pass: those that the app reads, and those that were deleted
// here and wait for the server.
function recordsAt(position, type, terms) {
  var found = [];
  for (var record = 0; record < page.records.length; record++) {
    if (type >= 0 && page.records[record][0] !== type) continue;
    if (!isThere(record, position)) {
      var state = stateAt(record, position);
      if (state === null || state.pending === 0) continue;
    }
    if (terms.length === 0 || matches(record, position, terms)) found.push(record);
  }
  return found;
}
