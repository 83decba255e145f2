// The lanes: what happened along the log, one column of pixels at a time, and the scrubber on them.

var LANE = 20;
var lanes = { byTime: false, width: 0, drawn: null, marks: null };

// Returns the place of a position along the lanes, from 0 to 1.
function along(position) {
  if (last === first) return 0;
  if (!lanes.byTime) return (position - first) / (last - first);
  var begin = clockAt(first + 1), end = clockAt(last);
  return end === begin ? (position - first) / (last - first) : (clockAt(position) - begin) / (end - begin);
}

function positionAt(part) {
  if (!lanes.byTime) return Math.round(first + part * (last - first));
  var begin = clockAt(first + 1), end = clockAt(last), wanted = begin + part * (end - begin);
  var from = 0, to = clocks.length;
  while (from < to) {
    var middle = (from + to) >> 1;
    if (clocks[middle] <= wanted) from = middle + 1; else to = middle;
  }
  return Math.max(first + 1, first + from);
}

// Counts what each column of pixels has. The counts are made anew when the width changes.
function bucketed(width) {
  var made = { edits: new Float32Array(width), server: new Float32Array(width), silent: new Float32Array(width),
    opened: new Float32Array(width), waiting: new Float32Array(width), dead: new Float32Array(width),
    open: new Float32Array(width), newDead: [], newConflict: [], most: 1 };
  var column = function (position) { return Math.min(width - 1, Math.floor(along(position) * (width - 1))); };
  page.entries.kind.forEach(function (kind, at) {
    var x = column(first + at + 1), name = page.kinds[kind];
    if (name === "edit" || name === "person") made.edits[x]++;
    else if (name === "answer") made.server[x]++;
    else if (name === "silence") made.silent[x]++;
    else if (name === "opening") made.opened[x]++;
  });
  var before = null, from = 0;
  for (var row = 0; row < page.numbers.length; row += 6) {
    var at = page.numbers[row], x = column(at);
    if (before) fill(made, before, from, x);
    if (before && page.numbers[row + 3] > before.dead) made.newDead.push(x);
    if (before && page.numbers[row + 4] > before.conflicts) made.newConflict.push(x);
    before = numbersAt(at);
    from = x;
  }
  if (before) fill(made, before, from, width - 1);
  return made;
}

function fill(made, numbers, from, to) {
  for (var x = from; x <= to; x++) {
    made.waiting[x] = Math.max(made.waiting[x], numbers.pending);
    made.dead[x] = Math.max(made.dead[x], numbers.dead);
    made.open[x] = Math.max(made.open[x], numbers.open);
  }
  made.most = Math.max(made.most, numbers.pending);
}

function colours() {
  var style = getComputedStyle(document.documentElement), found = {};
  ["ink", "faint", "line", "accent", "good", "waiting", "bad", "lost"].forEach(function (name) {
    found[name] = style.getPropertyValue("--" + name).trim();
  });
  return found;
}

// Draws the lanes on a canvas of their own, which is kept while only the position changes.
function drawnLanes(width, height, scale) {
  var drawn = document.createElement("canvas");
  drawn.width = width * scale;
  drawn.height = height * scale;
  var pen = drawn.getContext("2d"), all = bucketed(width), paint = colours();
  pen.scale(scale, scale);
  pen.fillStyle = paint.line;
  for (var lane = 1; lane < 5; lane++) pen.fillRect(0, lane * LANE - 0.5, width, 1);
  var wide = width / Math.max(1, last - first) > 8 ? 3 : 1;
  var ticks = function (lane, counts, colour) {
    var most = counts.reduce(function (one, other) { return Math.max(one, other); }, 1);
    pen.fillStyle = colour;
    counts.forEach(function (count, x) {
      if (!count) return;
      var tall = 5 + (LANE - 10) * Math.sqrt(count / most);
      pen.fillRect(x - (wide - 1) / 2, lane * LANE + (LANE - tall) / 2, wide, tall);
    });
  };
  ticks(0, all.edits, paint.accent);
  ticks(1, all.server, paint.good);
  ticks(1, all.silent, paint.bad);
  ticks(4, all.opened, paint.faint);
  pen.fillStyle = paint.waiting;
  all.waiting.forEach(function (count, x) {
    if (count) { var tall = 2 + (LANE - 6) * (count / all.most); pen.fillRect(x, 3 * LANE - 2 - tall, 1, tall); }
  });
  all.dead.forEach(function (count, x) {
    if (count) { pen.fillStyle = paint.bad; pen.fillRect(x, 4 * LANE - 4, 1, 2); }
    else if (all.open[x]) { pen.fillStyle = paint.lost; pen.fillRect(x, 4 * LANE - 4, 1, 2); }
  });
  var mark = function (x, colour, isCross) {
    var y = 3 * LANE + LANE / 2 - 1;
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 1.8;
    pen.beginPath();
    if (isCross) { pen.moveTo(x - 3, y - 3); pen.lineTo(x + 3, y + 3); pen.moveTo(x + 3, y - 3); pen.lineTo(x - 3, y + 3); pen.stroke(); }
    else { pen.moveTo(x, y - 4); pen.lineTo(x + 4, y); pen.lineTo(x, y + 4); pen.lineTo(x - 4, y); pen.fill(); }
  };
  all.newConflict.forEach(function (x) { mark(x, paint.lost, false); });
  all.newDead.forEach(function (x) { mark(x, paint.bad, true); });
  return drawn;
}

// Draws the lanes with the moment, and the other end of a difference.
function drawLanes(position, other) {
  var canvas = byId("lanes"), box = byId("slider");
  var width = Math.max(1, box.clientWidth), height = 5 * LANE, scale = window.devicePixelRatio || 1;
  if (!lanes.drawn || lanes.width !== width) {
    lanes.width = width;
    lanes.drawn = drawnLanes(width, height, scale);
    canvas.width = width * scale;
    canvas.height = height * scale;
    ticksOf(width);
  }
  var pen = canvas.getContext("2d"), paint = colours();
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  var x = along(position) * (width - 1);
  pen.scale(scale, scale);
  if (other !== null) {
    var from = along(other) * (width - 1);
    pen.globalAlpha = 0.12;
    pen.fillStyle = paint.accent;
    pen.fillRect(Math.min(from, x), 0, Math.abs(x - from), height);
    pen.globalAlpha = 1;
    pen.fillRect(from - 0.5, 0, 1, height);
  }
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.drawImage(lanes.drawn, 0, 0);
  pen.scale(scale, scale);
  pen.fillStyle = paint.ink;
  pen.fillRect(x - 0.75, 0, 1.5, height);
  pen.beginPath();
  pen.moveTo(x - 5, 0);
  pen.lineTo(x + 5, 0);
  pen.lineTo(x, 6);
  pen.fill();
  box.setAttribute("aria-valuemin", first);
  box.setAttribute("aria-valuemax", last);
  box.setAttribute("aria-valuenow", position);
  box.setAttribute("aria-valuetext", "entry " + position + ", " + dayOf(wallAt(position)) + " " + timeOf(wallAt(position)));
}

// Writes some times below the lanes, each where its entry is.
function ticksOf(width) {
  var into = byId("ticks"), count = Math.max(2, Math.min(8, Math.floor(width / 130)));
  into.textContent = "";
  var day = "", right = -1, digits = clockAt(last) - clockAt(first) < 1800000 ? 8 : 5;
  for (var at = 0; at < count; at++) {
    var part = at / (count - 1);
    var time = clockAt(positionAt(part)), today = dateOf(time);
    var made = el("span", at === 0 ? "begin" : at === count - 1 ? "end" : "", (today === day ? "" : today + " ") + timeOf(time).slice(0, digits));
    day = today;
    made.style.left = part * 100 + "%";
    into.append(made);
    var box = made.getBoundingClientRect();
    if (box.left < right + 12) made.remove(); else right = box.right;
  }
}

function redrawLanes() { lanes.drawn = null; }
