"""The page of a chaos run: one HTML file that loads nothing, made from what a run keeps (`recorded.py`). Standard library only.

May not know: how a run is made.
"""

from page import anomalies, sections
from page.markup import document

NAME = "report.html"


def page(recorded):
    """The page as text."""
    parts = [
        sections.verdict(recorded),
        anomalies.section_of(recorded),
        sections.unavailability(recorded),
        sections.latency(recorded),
        sections.throughput(recorded),
        sections.unseen(recorded),
        sections.operations(recorded),
        sections.logs(recorded),
    ]
    return document(f"Chaos run, seed {recorded.facts['seed']}: {recorded.facts['outcome']}", "".join(parts))


def write(recorded, path):
    path.write_text(page(recorded), encoding="utf-8")
    return path
