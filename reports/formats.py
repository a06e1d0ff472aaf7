"""Write numbers and names as every report shows them. A value that was not measured, None, is shown as a dash."""

import re

from trans4init.reports.records.tuning_design import Setting
from trans4init.reports.statistics import Estimate, Interval

__all__ = [
    "bounds",
    "count",
    "interval",
    "limits",
    "markdown",
    "number",
    "setting",
    "signed",
    "signed_number",
    "significant",
    "spoken",
    "step",
    "value",
]


def spoken(name: str) -> str:
    """Return a metric's name as a person says it: `validation_loss` is "validation loss"."""
    return name.replace("_", " ")


def markdown(text: str) -> str:
    """Return a text as Markdown that shows it as it is, in one line: characters with a meaning there are escaped."""
    return re.sub(r"([\\`*_<|&]|(?<=\])\()", r"\\\1", " ".join(text.split()))


def count(number: int | None) -> str:
    """Return a whole number in groups of three digits."""
    return "–" if number is None else f"{number:,}".replace(",", " ")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, with an exponent below 0.001 and from 100,000 on."""
    if value is None:
        return "–"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits - 1}e}"
    return significant(value, digits).replace(",", "")


def setting(value: Setting, digits: int = 3) -> str:
    """Return the value of a setting: a number with `digits` significant digits, a list's entries joined by ×."""
    if isinstance(value, list):
        return "×".join(setting(entry, digits) for entry in value)
    return number(value, digits) if isinstance(value, float) else str(value)


def significant(value: float, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, commas between thousands, and no exponent for large values."""
    return f"{value:,.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def signed(value: float | None) -> str:
    """Return a difference with its sign and four decimals."""
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")


def signed_number(value: float | None) -> str:
    """Return a difference of any size with its sign and two significant digits."""
    return "–" if value is None else ("−" if value < 0 else "+") + number(abs(value), 2)


def step(value: float | None) -> str:
    """Return a training step in groups of three digits; "never" where it is later than any that was watched."""
    return "never" if value is None else count(round(value))


def value(estimate: Estimate | None, digits: int = 4) -> str:
    """Return the value of an estimate with `digits` decimals."""
    return "–" if estimate is None else f"{estimate.value:.{digits}f}"


def bounds(estimate: Estimate | None, digits: int = 4) -> str:
    """Return the interval of an estimate with `digits` decimals; an empty string where there is no interval."""
    return "" if estimate is None else limits(estimate.interval, digits)


def limits(bounds: Interval | None, digits: int = 4) -> str:
    """Return an interval of values without signs, with `digits` decimals; an empty string where there is none."""
    return "" if bounds is None else f"[{bounds.low:.{digits}f}, {bounds.high:.{digits}f}]"


def interval(bounds: Interval | None) -> str:
    """Return the interval of a difference, both ends with their signs."""
    return "–" if bounds is None else f"[{signed(bounds.low)}, {signed(bounds.high)}]"
