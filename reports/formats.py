"""What a report says: the verdict in sentences, and numbers as its pages write them."""

from trans4init.reports.statistics import Estimate, Interval

__all__ = ["count", "figure", "interval", "limits", "number", "signed", "value", "words"]


def words(name: str) -> str:
    """A metric's name as a person says it."""
    return name.replace("_", " ")


def count(number: int | None) -> str:
    """A whole number, in groups of three digits; a dash for what was not measured."""
    return "–" if number is None else f"{number:,}".replace(",", " ")


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits; a dash for what was not measured."""
    if value is None:
        return "–"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits - 1}e}"
    return figure(value, digits).replace(",", "")


def figure(value: float, digits: int = 3) -> str:
    """So many significant digits, thousands set apart, without an exponent for what is large."""
    return f"{value:,.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")


def value(estimate: Estimate | None, digits: int = 4) -> str:
    """The value of an estimate."""
    return "–" if estimate is None else f"{estimate.value:.{digits}f}"


def limits(estimate: Estimate | None, digits: int = 4) -> str:
    """The interval of an estimate; empty where it has none."""
    if estimate is None or estimate.interval is None:
        return ""
    return f"[{estimate.interval.low:.{digits}f}, {estimate.interval.high:.{digits}f}]"


def interval(found: Interval | None) -> str:
    """The interval of a difference."""
    return "–" if found is None else f"[{signed(found.low)}, {signed(found.high)}]"
