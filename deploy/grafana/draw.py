#!/usr/bin/env python3
"""Draws the panels of ottla.json from what a Prometheus answers to their expressions: a picture without a Grafana.

Usage: deploy/grafana/draw.py URL FILE [--seconds 300] [--end NOW] [--job ottla], with matplotlib (pip install matplotlib).
The picture of docs/monitoring.md is made by `tests/monitoring/run.py --draw FILE`. May not know: what panels mean.
"""

import argparse
import datetime
import io
import json
import math
import pathlib
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates
import matplotlib.pyplot
import matplotlib.ticker
import PIL.Image
from matplotlib.patches import Rectangle

PAGE = pathlib.Path(__file__).resolve().parent / "ottla.json"
COLUMNS, DOTS = 24, 90
UNIT_WIDTH, UNIT_HEIGHT = 0.74, 0.3
SAMPLES, LEGEND_LINES = 120, 6
BACK, PANEL, TEXT, FAINT = "#111217", "#181b1f", "#d8d9da", "#8e9197"
COLOURS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "yellow": "#fade2a", "purple": "#b877d9", None: TEXT}
LINES = ["#73bf69", "#fade2a", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#c8f2c2", "#ffcb7d", "#ff7383"]
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


class Source:
    """The data source: a Prometheus, and what stands for the dashboard's variables."""

    def __init__(self, given):
        self.url, self.end, self.seconds = given.url, given.end, given.seconds
        self.step = max(1, given.seconds // SAMPLES)
        self.values = {"$__rate_interval": f"{max(4 * self.step, 15)}s", "$job": given.job, "$topic": ".*", "$group": ".*"}

    def ask(self, path, expression, **arguments):
        for name, value in self.values.items():
            expression = expression.replace(name, value)
        query = urllib.parse.urlencode({"query": expression, **arguments})
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def now(self, target):
        return [(legend(target, one["metric"]), float(one["value"][1])) for one in self.ask("/api/v1/query", target["expr"], time=self.end)]

    def range(self, target):
        found = self.ask("/api/v1/query_range", target["expr"], start=self.end - self.seconds, end=self.end, step=self.step)
        return [(legend(target, one["metric"]), [(float(at), float(value)) for at, value in one["values"]]) for one in found]


def legend(target, labels):
    text = target["legendFormat"]
    for name, value in labels.items():
        # A data directory of a test has a long path.
        text = text.replace("{{" + name + "}}", value if name != "directory" else "/".join(value.split("/")[-2:]))
    return text


def shown(value, unit):
    """A value as Grafana writes it, nearly."""
    if math.isnan(value):
        return "-"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{value * 1000:.3g} ms" if abs(value) >= 1e-3 else f"{value * 1e6:.3g} µs"
    suffix = {"s": " s", "bytes": "B", "Bps": "B/s", "cps": "/s", "reqps": " req/s", "wps": " w/s"}.get(unit, "")
    for size, prefix in PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{suffix.strip()}".strip() if suffix else f"{value / size:.3g}{prefix}"
    return f"{value:.3g}{suffix}"


def colour(panel, value):
    chosen = None
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            chosen = step["color"]
    return COLOURS[chosen]


def draw_stat(axes, panel, source):
    axes.axis("off")
    unit = panel["fieldConfig"]["defaults"]["unit"]
    found = source.now(panel["targets"][0])
    for number, (name, value) in enumerate(found[:2]):
        x = (number + 0.5) / min(2, len(found))
        axes.text(x, 0.52, shown(value, unit), color=colour(panel, value), fontsize=22, ha="center", va="center")
        axes.text(x, 0.12, name, color=FAINT, fontsize=8, ha="center", va="center")
    if not found:
        axes.text(0.5, 0.5, "No data", color=FAINT, fontsize=12, ha="center", va="center")


def draw_timeseries(axes, panel, source):
    unit, custom = panel["fieldConfig"]["defaults"]["unit"], panel["fieldConfig"]["defaults"]["custom"]
    series = sorted((one for target in panel["targets"] for one in source.range(target)), key=lambda one: -one[1][-1][1])
    floor = {}
    for number, (name, values) in enumerate(series):
        stacked = custom["stacking"]["mode"] == "normal"
        times = [datetime.datetime.fromtimestamp(at) for at, _ in values]
        heights = [value + floor.get(at, 0) * stacked for at, value in values]
        floor.update({at: height for (at, _), height in zip(values, heights)})
        line = LINES[number % len(LINES)]
        axes.plot(times, heights, color=line, linewidth=1.1, label=f"{name}  {shown(values[-1][1], unit)}" if number < LEGEND_LINES - (len(series) > LEGEND_LINES) else None)
        axes.fill_between(times, heights, color=line, alpha=0.08, linewidth=0)
    axes.set_ylim(bottom=0)
    if axes.get_ylim()[1] < 1e-9 or not series or all(value == 0 for _, values in series for _, value in values):
        axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: shown(value, unit)))
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    if series:
        if len(series) > LEGEND_LINES:
            axes.plot([], [], color=PANEL, label=f"and {len(series) - LEGEND_LINES + 1} more")
        columns = 3 if max(len(name) for name, _ in series[:LEGEND_LINES]) < 12 else 2
        axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(-0.1, -0.12), ncols=columns, frameon=False, labelcolor=TEXT, handlelength=1)
    else:
        axes.text(0.5, 0.5, "No data", color=FAINT, fontsize=10, ha="center", va="center", transform=axes.transAxes)
    timeline(axes, source)


def draw_bargauge(axes, panel, source):
    unit, high = panel["fieldConfig"]["defaults"]["unit"], panel["fieldConfig"]["defaults"].get("max")
    found = sorted(source.now(panel["targets"][0]))
    axes.set(xlim=(0, high or max([value for _, value in found] or [1])), ylim=(-0.5, max(len(found), 1) - 0.5))
    for number, (name, value) in enumerate(reversed(found)):
        axes.barh(number, axes.get_xlim()[1], color="#22252b", height=0.5)
        axes.barh(number, value, color=colour(panel, value), height=0.5)
        axes.text(0.01, number + 0.36, f"{name}   {shown(value, unit)}", color=TEXT, fontsize=7, va="center", transform=axes.get_yaxis_transform())
    axes.axis("off")


def draw_state_timeline(axes, panel, source):
    meanings = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    series = sorted(source.range(panel["targets"][0]))
    for number, (_, values) in enumerate(reversed(series)):
        for at, value in values:
            begin = matplotlib.dates.date2num(datetime.datetime.fromtimestamp(at))
            meaning = meanings.get(f"{value:.0f}", {"color": None})
            axes.add_patch(Rectangle((begin, number - 0.4), source.step * 1.02 / 86400, 0.8, color=COLOURS[meaning["color"]], alpha=0.7, linewidth=0))
    axes.set(ylim=(-0.5, max(len(series), 1) - 0.5))
    axes.set_yticks(range(len(series)), [name for name, _ in reversed(series)])
    for meaning in meanings.values():
        axes.plot([], [], "s", color=COLOURS[meaning["color"]], label=meaning["text"], markersize=4)
    axes.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=6, frameon=False, labelcolor=TEXT)
    timeline(axes, source)


def timeline(axes, source):
    axes.set_xlim(datetime.datetime.fromtimestamp(source.end - source.seconds), datetime.datetime.fromtimestamp(source.end))
    axes.xaxis.set_major_locator(matplotlib.dates.AutoDateLocator(minticks=2, maxticks=5))
    axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M:%S"))
    axes.tick_params(colors=FAINT, labelsize=6.5, length=0)
    axes.grid(color="#2c2f36", linewidth=0.5)
    for side in axes.spines.values():
        side.set_visible(False)


KINDS = {"stat": draw_stat, "timeseries": draw_timeseries, "bargauge": draw_bargauge, "state-timeline": draw_state_timeline}


def draw(page, source, file):
    panels = page["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = matplotlib.pyplot.figure(figsize=(COLUMNS * UNIT_WIDTH, height * UNIT_HEIGHT), facecolor=BACK)
    for panel in panels:
        place = panel["gridPos"]
        left, bottom = place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / height
        wide, high = place["w"] / COLUMNS, place["h"] / height
        if panel["type"] == "row":
            figure.text(left + 0.004, bottom + high / 2, f"▾ {panel['title']}", color=TEXT, fontsize=11, va="center")
            continue
        gap = 0.0025
        figure.add_artist(Rectangle((left + gap, bottom + gap / 3), wide - 2 * gap, high - gap, facecolor=PANEL, edgecolor="#2c2f36", linewidth=0.6, zorder=-1))
        figure.text(left + gap * 2.5, bottom + high - gap * 1.1, panel["title"], color=TEXT, fontsize=8, va="top")
        # Room for the title above, and for the axes' labels beside and below.
        edge = 0.016 if panel["type"] in ("stat", "bargauge") else 0.042
        below = {"stat": 0.0015, "timeseries": 0.0245, "state-timeline": 0.016}.get(panel["type"], 0.0085)
        axes = figure.add_axes((left + edge, bottom + below, wide - edge - 0.008, high - below - 0.0085), facecolor=PANEL)
        KINDS[panel["type"]](axes, panel, source)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DOTS, facecolor=BACK)
    # Few colours are enough, and take less than half of the space.
    PIL.Image.open(drawn).convert("RGB").quantize(128, dither=PIL.Image.Dither.NONE).save(file, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="http://localhost:9090")
    parser.add_argument("file")
    parser.add_argument("--seconds", type=int, default=300, help="how far back")
    parser.add_argument("--end", type=float, default=time.time(), help="until when, in seconds since 1970")
    parser.add_argument("--job", default="ottla")
    given = parser.parse_args()
    draw(json.loads(PAGE.read_text()), Source(given), given.file)


main()
