"""Make a study's report: sum up its runs, judge and word the verdict, draw the figures, write the pages."""

from trans4init.reports.study_report.across import AcrossStudies, across_studies
from trans4init.reports.study_report.verdict import Comparison, PairedRuns, judge

__all__ = ["AcrossStudies", "Comparison", "PairedRuns", "across_studies", "judge"]
