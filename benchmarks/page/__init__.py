"""The report of a run: one page that tells the truth, or its tables as Markdown, CSV or JSON.

write_report("runs/mine")  # runs/mine/report.html
"""

from __future__ import annotations

from chase.benchmarks.page.facts import Facts, gather
from chase.benchmarks.page.formats import FORMATS, write_report
from chase.benchmarks.page.verdict import Verdict, judge

__all__ = ["FORMATS", "Facts", "Verdict", "gather", "judge", "write_report"]
