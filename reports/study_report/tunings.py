"""Say which words of a study depend on how it was tuned: a study may be tuned several times, each time afresh."""

from collections import Counter
from dataclasses import dataclass

from trans4init.reports.study_report.comparing import Compared
from trans4init.reports.study_report.gain import Gain, in_every
from trans4init.reports.study_report.verdict import Comparison

__all__ = ["BUDGET_DEPENDENT", "DEPENDS", "Budgets", "Tunings"]

DEPENDS = "depends on tuning"
"""What is said of a cell in place of a word that another tuning changes."""
BUDGET_DEPENDENT = "budget-dependent"
"""What is said of a cell in place of a word that it doesn't have with fewer trials."""


@dataclass(frozen=True)
class Tunings:
    """Holds what the comparison of one cell with the reference gave each further time that the study was tuned."""

    further: tuple[Compared, ...] = ()
    """In the order of the times; a time whose runs are not all finished is left out."""

    def words(self, first: Comparison, metric: str = "") -> tuple[str, ...]:
        """Return the cell's word each time, beginning with that of the first.

        metric: another metric that the study stated a margin for, which `first` is about; empty for the judged one.
        """
        found = [time.elsewhere.get(metric) if metric else time.comparison for time in self.further]
        return (first.verdict, *(comparison.verdict for comparison in found if comparison is not None))

    def disagree(self, first: Comparison, metric: str = "") -> bool:
        """Return whether some time gave another word than the first."""
        return len(set(self.words(first, metric))) > 1

    def counted(self, first: Comparison, metric: str = "") -> str:
        """Write how often each word was found, the most frequent first: better 3 times of 5, inconclusive 2."""
        words = self.words(first, metric)
        (word, times), *others = Counter(words).most_common()
        return ", ".join([f"{word} {times} of {len(words)} times", *(f"{word} {times}" for word, times in others)])

    def gain(self, first: Gain | None) -> Gain | None:
        """Return what explains the cell's gain all times: a control counts as beaten only if it was each time.

        None where the first time found no gain.
        """
        return first and in_every([first, *(time.gain for time in self.further if time.gain is not None)])


@dataclass(frozen=True)
class Budgets:
    """Holds what the comparison of one cell with the reference gave with the best of fewer trials."""

    smaller: tuple[tuple[int, Compared], ...] = ()
    """Each number of trials with its comparison; one whose runs are not all finished is left out."""
    trials: int | None = None
    """The number of all trials."""

    def disagree(self, whole: Comparison) -> bool:
        """Return whether some smaller budget gives another word."""
        return any(found.comparison.verdict != whole.verdict for _, found in self.smaller)

    def counted(self, whole: Comparison) -> str:
        """Write the word at each budget: better with 1 trial, equivalent with 5 and with 8."""
        words: dict[str, list[str]] = {}
        for trials, word in [
            *((n, found.comparison.verdict) for n, found in self.smaller),
            (self.trials, whole.verdict),
        ]:
            words.setdefault(word, []).append(f"with {trials}")
        return ", ".join(f"{word} {' and '.join(budgets)}" for word, budgets in words.items()) + " trials"
