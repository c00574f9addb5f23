"""Charts over time as SVG, with a band for each fault. Two sizes of each: for a wide and for a narrow screen, where scaled letters would be
too small to read.

May not know: what the numbers mean.
"""

import dataclasses
import math

from page.markup import element, text

LABEL_ROWS = 2
# Dots of one series at most; they lie on whole units of the drawing, so that those which would hide each other are one.
DOTS_MAX = 12_000


@dataclasses.dataclass(frozen=True)
class Size:
    name: str
    width: int
    height: int
    left: int
    font: float
    # How wide a letter is, about.
    letter: float
    dot: float


SIZES = (Size("wide", 1040, 330, 52, 12, 6.8, 2.6), Size("narrow", 344, 260, 48, 10.5, 6, 2))


def nice_step(span, count):
    """A step of 1, 2 or 5 times a power of ten, so that about `count` of them fill the span."""
    rough = max(span, 1e-9) / max(count, 1)
    power = 10 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)


def duration_text(seconds):
    if seconds < 0.001:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


class Chart:
    """`least` and `greatest`: of the values; both powers of ten if the scale is logarithmic."""

    def __init__(self, size, duration, greatest, least=None):
        self.size, self.duration, self.greatest, self.least = size, duration, greatest, least
        self.top = 8 + (size.font + 4) * LABEL_ROWS
        self.bottom = size.height - 2 * size.font - 10
        self.right = size.width - 8
        self.parts = []

    def x(self, seconds):
        share = min(max(seconds / self.duration, 0), 1)
        return self.size.left + share * (self.right - self.size.left)

    def y(self, value):
        if self.least is None:
            share = value / self.greatest
        else:
            share = math.log(max(value, self.least) / self.least) / math.log(self.greatest / self.least)
        return self.bottom - min(max(share, 0), 1) * (self.bottom - self.top)

    def add(self, name, content=None, **attributes):
        self.parts.append(element(name, content, **attributes))

    def word(self, x, y, words, anchor="middle"):
        self.add("text", text(words), x=f"{x:.0f}", y=f"{y:.0f}", text_anchor=anchor, font_size=self.size.font)

    # What lies behind the data

    def bands(self, faults):
        """`faults`: (number, kind, title, begun, over, ended), times in seconds. The darker part is the fault, the lighter one until all is well."""
        ends = [0.0] * LABEL_ROWS
        for number, kind, title, begun, over, ended in faults:
            hover = element("title", text(f"{number} {kind}: {title}"))
            for first, last, name in ((begun, over, "fault"), (over, ended, "after")):
                left, width = self.x(first), max(self.x(last) - self.x(first), 0.5)
                place = {"x": f"{left:.1f}", "y": f"{self.top:.0f}", "width": f"{width:.1f}", "height": f"{self.bottom - self.top:.0f}"}
                self.add("rect", hover, **place, class_=name)
            label = f"{number} {kind}" if self.size.name == "wide" else str(number)
            place = min(self.x(begun), self.right - len(label) * self.size.letter)
            row = next((row for row, end in enumerate(ends) if end <= place), None)
            if row is not None:
                self.word(place, self.top - 5 - row * (self.size.font + 3), label, "start")
                ends[row] = place + (len(label) + 1) * self.size.letter

    def axes(self, label, ticks):
        """`ticks`: (value, text) of the vertical axis."""
        for value, words in ticks:
            y = self.y(value)
            self.add("path", d=f"M{self.size.left} {y:.1f}H{self.right}", class_="grid")
            self.word(self.size.left - 5, y + self.size.font / 3, words, "end")
        step = nice_step(self.duration, (self.right - self.size.left) / 70)
        for number in range(int(self.duration / step) + 1):
            x = self.x(number * step)
            self.add("path", d=f"M{x:.1f} {self.bottom}v4", class_="axis")
            self.word(x, self.bottom + self.size.font + 5, f"{number * step:g}")
        self.add("path", d=f"M{self.size.left} {self.bottom}H{self.right}", class_="axis")
        self.word(self.right, self.size.height - 4, "seconds since the start", "end")
        self.word(2, self.size.height - 4, label, "start")

    def linear(self, label):
        step = max(nice_step(self.greatest, 4), 1)
        self.axes(label, [(n * step, f"{n * step:,.0f}") for n in range(int(self.greatest / step) + 1)])

    def logarithmic(self, label):
        decades = range(round(math.log10(self.least)), round(math.log10(self.greatest)) + 1)
        self.axes(label, [(10.0**decade, duration_text(10.0**decade)) for decade in decades])

    # Data

    def dots(self, places, kind):
        """Returns how many of them are not drawn because there are too many; the extremes of each column are."""
        spots = {(round(self.x(seconds)), round(self.y(value))) for seconds, value in places}
        kept = few(spots)
        path = "".join(f"M{x} {y}h0" for x, y in sorted(kept))
        self.add("path", d=path, class_=f"dots {kind}", stroke_width=self.size.dot)
        return len(spots) - len(kept)

    def crosses(self, places, kind):
        """A place without a value lies above the chart's upper edge: nothing ended."""
        edge = self.top + 4
        spots = {(round(self.x(s) / 3) * 3, round((edge if value is None else self.y(value)) / 3) * 3) for s, value in places}
        path = "".join(f"M{x - 3} {y - 3}l6 6m0-6l-6 6" for x, y in sorted(spots))
        self.add("path", d=path, class_=f"crosses {kind}")

    def steps(self, values, name):
        """An area below (seconds, value): each value holds until the next moment."""
        if not values:
            return
        path = [f"M{self.x(values[0][0]):.1f} {self.bottom:.1f}"]
        for seconds, value in values:
            path.append(f"H{self.x(seconds):.1f}V{self.y(value):.1f}")
        path.append(f"H{self.right:.1f}V{self.bottom:.1f}Z")
        self.add("path", d="".join(path), class_=f"area {name}")

    def svg(self, label):
        box = f"0 0 {self.size.width} {self.size.height}"
        return element("svg", "".join(self.parts), viewBox=box, class_=self.size.name, role="img", aria_label=label)


def few(spots):
    """All of them if they are not too many; else of each column the highest and the lowest, and of the others every so many-th."""
    if len(spots) <= DOTS_MAX:
        return spots
    ends = {}
    for x, y in spots:
        low, high = ends.get(x, (y, y))
        ends[x] = min(low, y), max(high, y)
    kept = {(x, y) for x, pair in ends.items() for y in pair}
    others = sorted(spots - kept)
    return kept | set(others[:: math.ceil(len(others) / max(DOTS_MAX - len(kept), 1))])


def charts(draw, label):
    """The same chart in both sizes. `draw` gets a size and gives a finished Chart."""
    return element("div", "".join(draw(size).svg(label) for size in SIZES), class_="chart")
