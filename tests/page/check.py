#!/usr/bin/env python3
"""Checks the page of `fieldbook view` in a browser against the program's own answers.

    python3 tests/page/check.py PROGRAM BOOK...      each book at 50 positions
    python3 tests/page/check.py PROGRAM --hostile    values that want to be more than text
    python3 tests/page/check.py PROGRAM --speed BOOK the times and the size of a large page

It prints what it compared, and exits with 1 at the first difference.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Browser  # noqa: E402

POSITIONS = 50


def run(program, *args, fails=False, text=""):
    done = subprocess.run([program, *args], capture_output=True, text=True, input=text)
    if (done.returncode != 0) != fails:
        raise SystemExit(f"{args}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def objects(program, *args):
    return [json.loads(line) for line in run(program, *args, "--json").splitlines()]


def same(what, of_page, of_program):
    if of_page != of_program:
        raise SystemExit(f"{what}: the page has\n{of_page}\nand the program says\n{of_program}")


def shown(value):
    """Returns a value of a field as the page has it. The books here have no hidden characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= 2000 else text[:200]


def of_page(value):
    return value if isinstance(value, str) else value[0]


def positions(last):
    chosen = {0, 1, last} | {round(last * part / (POSITIONS - 3)) for part in range(POSITIONS - 2)}
    draw = random.Random(7)
    while len(chosen) < min(POSITIONS, last + 1):
        chosen.add(draw.randint(0, last))
    return sorted(chosen)


def compare_at(browser, program, book, at):
    """Compares the records, their states and the numbers of the book at a position."""
    browser.value(f"fieldbook.go({at})")
    page = {}
    for record in browser.value(
            f"fieldbook.records({at}).map(r => [fieldbook.names(r), fieldbook.fields(r, {at}), fieldbook.state(r, {at})])"):
        page[record[0]] = record
    listed = 0
    moment = ["--at", str(at)]
    there = [name for name, record in page.items() if record[1] is not None]
    order = []
    for entity in objects(program, "ls", book, *moment):
        for record in objects(program, "ls", book, entity["entity"], "--limit", "0", *moment):
            name, fields, state = page[record["key"]]
            same(f"{name} at {at}", {field: of_page(value) for field, value in fields.items()},
                 {field: shown(value) for field, value in record["fields"].items()})
            same(f"the version of {name} at {at}", state["version"] or None, record["version"])
            same(f"the pending ops of {name} at {at}", state["pending"], record["pending"])
            order.append(name)
            listed += 1
    same(f"the records at {at}", there, order)
    status = objects(program, "status", book, *moment)[0]
    numbers = browser.value(f"fieldbook.numbers({at})")
    for ours, theirs in (("pending", "pending"), ("dead", "dead_letters"), ("conflicts", "conflicts"),
                         ("open", "open_conflicts"), ("name", "state")):
        # Before the first entry there is nothing to count.
        if at > 0:
            same(f"{theirs} at {at}", numbers[ours], status[theirs])
    compare_shown(browser, page, at)
    some = sorted(page)
    random.Random(at).shuffle(some)
    waiting = [name for name in some if page[name][2]["pending"]]
    for name in waiting[:4] + some[:2]:
        same(f"the state of {name} at {at}", page[name][2]["name"],
             objects(program, "status", book, name, *moment)[0]["status"]["state"])
    return listed


def compare_shown(browser, page, at):
    """Compares what is to be seen with what the page knows."""
    text = browser.value("document.getElementById('place').textContent").replace(",", "")
    if at > 0:
        assert text.startswith(f"entry {at} of "), text
    rows = browser.value("[...document.querySelectorAll('.row')].map(row => [row.dataset.record,"
                         " row.querySelector('.pill').textContent, [...row.querySelectorAll('.cell')].map(c => c.textContent)])")
    for name, state, cells in rows:
        # A time in the words is shown in the zone of the device.
        words = page[name][2]["words"].split("20")[0]
        assert state.startswith(words), (state, words)
        values = [of_page(value)[:200] for value in (page[name][1] or {}).values()]
        for cell in cells:
            assert cell in ("", "\u201c\u201d") or any(cell.startswith(value[:150]) for value in values), (cell, values)
    if page:
        assert rows, f"no row is shown at {at}"


def without_times(text):
    """Returns a text in one line without its times, which each shows in the form of its place."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?|\b\d\d:\d\d:\d\d\b", "TIME", " ".join(text.split()))
    return text


def story(browser, program, book, key):
    """Compares the story of a record with `history`."""
    told = browser.value(
        f"(async () => {{ const r = fieldbook.records(fieldbook.last).find(r => fieldbook.names(r) === {json.dumps(key)});"
        " return (await fieldbook.story(r))[0].map(one => one[3]); })()")
    history = without_times(run(program, "history", book, key))
    for text in told:
        assert without_times(text) in history, (text, history)
    return len(told)


def check(program, book):
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        path = os.path.join(folder, "x.html")
        run(program, "view", book, "-o", path)
        browser.look(1366, 768)
        browser.open(path)
        last = browser.value("fieldbook.last")
        chosen = positions(last)
        records = sum(compare_at(browser, program, book, at) for at in chosen)
        keys = browser.value("fieldbook.records(fieldbook.last).map(fieldbook.names)")
        random.Random(1).shuffle(keys)
        told = sum(story(browser, program, book, key) for key in keys[:10])
        browser.look(390, 844)
        for at in chosen:
            browser.value(f"fieldbook.go({at})")
            same(f"the width on a phone at {at}", browser.value("document.documentElement.scrollWidth"), 390)
        same("faults", browser.faults(), [])
        print(f"{len(chosen)} positions of {last} entries, {records} records, {told} paragraphs: equal")


HOSTILE = {
    "script": "</script><script>window.hacked=1</script>",
    "image": "<img src=x onerror=window.hacked=1>",
    "comment": "<!-- <script> -->", "template": "{{script}} ${window.hacked=1}",
    "bidi": "abc\u202egnp.exe\u2066x\u2069", "lines": "one\u2028two\u2029three\nfour\rfive", "nul": "a\u0000b",
    "__proto__": "polluted", "constructor": "c", "toString": "t", "link": "javascript:window.hacked=1",
    "deep": {"__proto__": {"hacked": 1}, "a": [1, None, 1e300, 9007199254740993, 1.5]},
    "marks": "e\u0301\u0301\u0301\u0301\u0301\u0301\u0301", "emoji": "\U0001f469\u200d\U0001f680", "quote": "'\"`",
    "empty": "", "long": "<b>n</b>" * 40_000,
}


def hostile(program):
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        book = os.path.join(folder, "</title><script>window.hacked=1<".replace("/", "_") + ".book")
        run(program, "init", book, "--actor", "<img src=x onerror=window.hacked=1>")
        for key in ("lead/<img src=x onerror=window.hacked=1>", "lead/a\u202eb", "lead/__proto__", "lead/%2F#at=1&q=x"):
            run(program, "put", book, key, "-", text=json.dumps(HOSTILE))
        run(program, "patch", book, "lead/__proto__", json.dumps({"script": "<svg/onload=window.hacked=1>"}))
        path = os.path.join(folder, "x.html")
        run(program, "view", book, "-o", path)
        run(program, "view", book, "-o", path, fails=True)
        with open(path) as file:
            text = file.read()
        assert "onerror" not in text and "hacked" not in text, "a value is in the markup"
        browser.look(1366, 768)
        browser.open(path)
        scripts = browser.value("document.scripts.length")
        for at in range(browser.value("fieldbook.last") + 1):
            browser.value(f"fieldbook.go({at})")
            for record in browser.value(f"fieldbook.records({at})"):
                browser.value(f"fieldbook.open({record})")
                browser.value("new Promise(done => setTimeout(done, 30))")
        browser.key("d")
        browser.key("Home")
        browser.value("new Promise(done => setTimeout(done, 300))")
        same("elements of a value", browser.value(
            "document.querySelectorAll('img, svg, iframe, a[href], #pane script, #rows script, #pane b b').length"), 0)
        same("scripts", browser.value("document.scripts.length"), scripts)
        same("what a value ran", browser.value("[typeof window.hacked, typeof ({}).hacked]"), ["undefined", "undefined"])
        fields = browser.value("fieldbook.fields(fieldbook.records(fieldbook.last)[0], fieldbook.last)")
        # An escape shows each hidden character, as in the program.
        same("an escape", fields["bidi"], "abc\\u{202e}gnp.exe\\u{2066}x\\u{2069}")
        same("lines", fields["lines"], "one\\u{2028}two\\u{2029}three\nfour\\rfive")
        same("a long value", fields["long"][:2], ["<b>n</b>" * 25, 320_000])
        same("a number that a browser would round", json.loads(fields["deep"][0])["a"][3], 9007199254740993)
        # What the policy has to refuse.
        browser.value("(() => { const s = document.createElement('script'); try { s.append('window.hacked = 1');"
                      " document.body.append(s); } catch (e) {} })()")
        browser.value("fetch('http://127.0.0.1:9/').then(() => { window.hacked = 1; }, () => 0)")
        browser.value("try { document.body.innerHTML = '<p>'; window.hacked = 1; } catch (e) {}")
        same("what got past the policy", browser.value("typeof window.hacked"), "undefined")
        link = browser.value("location.hash")
        refused = [fault for fault in browser.faults() if "Content Security Policy" in fault or "TrustedScript" in fault or "Trusted" in fault]
        assert refused, browser.faults()
        browser.open(path, "#at=4&record=lead/__proto__")
        same("a link", browser.value("[fieldbook.current().at, fieldbook.names(fieldbook.current().record)]"), [4, "lead/__proto__"])
        same("faults", browser.faults(), [])
        print(f"{len(HOSTILE)} hostile values in 4 records: all of them are text ({link[:20]})")


def speed(program, book):
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        path = os.path.join(folder, "x.html")
        run(program, "view", book, "-o", path)
        browser.look(1366, 768)
        ready = sorted(browser.open(path) for _ in range(3))[1]
        last = browser.value("fieldbook.last")
        jumps = browser.value(f"""(async () => {{
            const times = [], draw = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            for (let n = 0; n < 100; n++) {{
                const at = Math.floor({last} * ((n * 37) % 100) / 100), began = performance.now();
                fieldbook.go(at); await draw(); times.push(performance.now() - began);
            }}
            return times.sort((a, b) => a - b); }})()""")
        heap = next(metric["value"] for metric in browser.call("Performance.getMetrics")["metrics"]
                    if metric["name"] == "JSHeapUsedSize")
        same("faults", browser.faults(), [])
        print(f"page of {last} entries: {os.path.getsize(path) / 1e6:.1f} MB, ready in {ready:.0f} ms, "
              f"a jump takes {jumps[50]:.0f} ms (95 of 100 under {jumps[95]:.0f} ms), heap {heap / 1e6:.0f} MB")


def main():
    program, what = os.path.abspath(sys.argv[1]), sys.argv[2:]
    if what == ["--hostile"]:
        hostile(program)
    elif what[0] == "--speed":
        speed(program, what[1])
    else:
        for book in what:
            check(program, book)


main()
