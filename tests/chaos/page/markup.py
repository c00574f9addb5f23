"""HTML and SVG as text: everything that is shown goes through `text`, and the page loads nothing.

May not know: runs, charts.
"""

import html
import re

# Nothing may be loaded or executed, whatever a log says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# Colours of a terminal, and what has no picture in HTML.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VOID = {"meta", "br"}


def text(value):
    """What somebody else wrote, as text that is no markup."""
    plain = ESCAPES.sub("", str(value))
    return html.escape(CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", plain))


def element(name, content=None, /, **attributes):
    """An element; `content` is markup already, attributes are not. `class_` and names with underscores are written as HTML has them."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items() if value is not None)
    if name in VOID:
        return f"<{name}{said}>"
    return f"<{name}{said}>{content or ''}</{name}>"


def paragraph(words, class_=None):
    return element("p", text(words), class_=class_)


def short(words):
    """A cell that stays on one line."""
    return element("span", text(words), class_="short")


def listing(lines):
    return element("ul", "".join(element("li", line) for line in lines))


def facts(pairs):
    """Names and their texts."""
    return element("dl", "".join(element("dt", text(name)) + element("dd", text(value)) for name, value in pairs))


def table(head, rows, marked=(), class_="cards"):
    """Cells are markup. On a narrow screen each row is a block, in which every cell has its column's name in front. `marked`: rows by number."""
    first = element("tr", "".join(element("th", text(name)) for name in head))
    body = []
    for number, row in enumerate(rows):
        cells = "".join(element("td", element("span", cell), data_head=name) for name, cell in zip(head, row))
        body.append(element("tr", cells, class_="marked" if number in marked else None))
    return element("table", element("thead", first) + element("tbody", "".join(body)), class_=class_)


def details(title, content, is_open=False):
    """`title` and `content` are markup."""
    opened = {"open": "open"} if is_open else {}
    return element("details", element("summary", title) + content, **opened)


def section(title, *parts):
    return element("section", element("h2", text(title)) + "".join(parts))


def document(title, body):
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        element("title", text(title)),
        element("style", STYLE),
    ]
    return f'<!DOCTYPE html>\n<html lang="en">\n{element("head", "".join(head))}\n{element("body", element("main", body))}\n</html>\n'


STYLE = """
:root { color-scheme: light dark; --page: #fcfcfa; --ink: #1d1d1b; --soft: #5f5f5a; --line: #dedcd5; --box: #f3f2ee; --band: #8a877b;
  --good: #157f4f; --bad: #c0262d; --open: #9a6700; --send: #2563c4; --poll: #9aa0a8; --commit: #159a6c; --fetch: #a04fd0; --read: #d07c00; --change: #b0325f; --txn: #0e8f9c; }
@media (prefers-color-scheme: dark) { :root { --page: #161615; --ink: #e8e6e1; --soft: #a3a19a; --line: #3a3935; --box: #21201e; --band: #b5b1a4;
  --good: #45c48a; --bad: #ff6b6b; --open: #e0a93b; --send: #6ea8ff; --poll: #70767f; --commit: #3ecf9a; --fetch: #cf94f2; --read: #f2ae49; --change: #f07aa5; --txn: #45c6d2; }
  .fault { fill-opacity: .22 !important; } .after { fill-opacity: .1 !important; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 20px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 8px; } h2 { font-size: 18px; margin: 36px 0 8px; } h3 { font-size: 15px; margin: 16px 0 4px; }
p { margin: 6px 0; max-width: 78ch; } .soft, dt { color: var(--soft); }
.verdict { border-left: 6px solid var(--soft); background: var(--box); padding: 14px 16px; border-radius: 4px; }
.verdict.valid { border-color: var(--good); } .verdict.valid h1 b { color: var(--good); }
.verdict.invalid { border-color: var(--bad); } .verdict.invalid h1 b { color: var(--bad); }
.verdict.unknown { border-color: var(--open); } .verdict.unknown h1 b { color: var(--open); }
.note { border: 1px solid var(--open); border-radius: 4px; padding: 8px 12px; margin: 0 0 12px; max-width: none; }
.counts { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 8px; margin: 14px 0; padding: 0; list-style: none; }
.counts li { background: var(--box); border-radius: 4px; padding: 8px 12px; } .counts b { display: block; font-size: 20px; }
.counts li { color: var(--soft); font-size: 13px; } .counts b { color: var(--ink); }
pre { background: var(--box); border-radius: 4px; padding: 10px 12px; margin: 6px 0; font: 12.5px/1.5 ui-monospace, monospace; overflow-x: auto; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 10px 0; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin: 8px 0; } td, th { text-align: left; vertical-align: top; padding: 4px 14px 4px 0; overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 500; } td { border-top: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.short { white-space: nowrap; }
tr.marked td { background: color-mix(in srgb, var(--bad) 14%, transparent); }
.bar { display: inline-block; height: 9px; background: var(--bad); border-radius: 2px; margin-left: 8px; min-width: 2px; vertical-align: middle; }
details { margin: 8px 0; border-top: 1px solid var(--line); padding-top: 8px; } summary { cursor: pointer; overflow-wrap: anywhere; }
code, .value { font: 12.5px ui-monospace, monospace; } .missing { color: var(--bad); font-weight: 600; }
svg { display: block; width: 100%; height: auto; } svg.narrow { display: none; } svg text { fill: var(--soft); font-family: system-ui, sans-serif; }
.grid { stroke: var(--line); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1; fill: none; }
.fault { fill: var(--band); fill-opacity: .3; } .after { fill: var(--band); fill-opacity: .12; }
.dots { fill: none; stroke-linecap: round; } .crosses { fill: none; stroke-width: 1.4; } .area { stroke-width: 1.2; fill-opacity: .22; }
.send { stroke: var(--send); --own: var(--send); } .poll { stroke: var(--poll); --own: var(--poll); } .commit { stroke: var(--commit); --own: var(--commit); }
.fetch { stroke: var(--fetch); --own: var(--fetch); } .read { stroke: var(--read); --own: var(--read); }
.change { stroke: var(--change); --own: var(--change); } .txn { stroke: var(--txn); --own: var(--txn); } .area { fill: var(--own); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; padding: 0; margin: 4px 0; list-style: none; font-size: 13px; color: var(--soft); }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 50%; background: var(--own); margin-right: 6px; }
.key.fault, .key.after { background: var(--band); border-radius: 2px; opacity: .4; } .key.after { opacity: .17; }
@media (max-width: 640px) {
  main { padding: 12px 8px 40px; } svg.wide { display: none; } svg.narrow { display: block; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 6px; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: 8px; font-size: 11.5px; }
  .cards thead { display: none; } .cards tr { display: block; padding: 6px 0; border-top: 1px solid var(--line); }
  .cards td { overflow-wrap: anywhere; display: grid; grid-template-columns: 104px 1fr; gap: 8px; border: 0; padding: 1px 4px; }
  .cards td::before { content: attr(data-head); color: var(--soft); } }
"""
