"""A study's report: its runs summed up, the verdict judged and worded, the pages written."""

from trans4init.reports.study_report.verdict import Comparison, PairedRuns, judge

__all__ = ["Comparison", "PairedRuns", "judge"]
