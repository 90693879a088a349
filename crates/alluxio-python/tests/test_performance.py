"""The tables and the plot of docs/python/performance.md are drawn from their JSON."""

import importlib.util
import json
from pathlib import Path

CRATE = Path(__file__).resolve().parents[1]


def test_the_tables_and_the_plot_in_the_docs_are_drawn_from_their_json():
    spec = importlib.util.spec_from_file_location("report", CRATE / "bench/report.py")
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    figures = json.loads((report.DOCS / "performance.json").read_text())
    assert set(figures["rows"]) == set(report.ROWS)
    document = (report.DOCS / "performance.md").read_text()
    assert report.with_tables(document, figures) == document
    assert report.plot(figures) == (report.DOCS / "performance.svg").read_text()
