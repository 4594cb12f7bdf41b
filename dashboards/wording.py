"""How numbers are written in tables and sentences: one place, so that a page and a terminal say the same."""

import math

from siri.evaluation.statistics import Interval

MINUS = "−"


def number(value: float, digits: int) -> str:
    """A number with thousands separated and a real minus; – when there is none."""
    if math.isnan(value):
        return "–"
    text = f"{value:,.{digits}f}"
    return text.replace("-", MINUS) if float(text.replace(",", "")) else text.lstrip("-")


def signed(value: float, digits: int) -> str:
    """A difference: always with its sign, but for 0."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and any(digit in text for digit in "123456789") else text


def percent(value: float) -> str:
    """A fraction as a percentage, without the sign: .844 is 84.4."""
    return number(100 * value, 1)


def tokens(value: float) -> str:
    """A count of tokens; with a decimal below a thousand."""
    return number(value, 0 if abs(value) >= 1000 else 1)


def percent_interval(interval: Interval) -> str:
    """84.4 (80.1–88.5)."""
    return f"{percent(interval.mean)} ({percent(interval.low)}–{percent(interval.high)})"


def token_interval(interval: Interval) -> str:
    """42.4 (40.9–43.9)."""
    return f"{tokens(interval.mean)} ({tokens(interval.low)}–{tokens(interval.high)})"


def difference(interval: Interval, scale: float = 1, digits: int = 1) -> str:
    """+10.3 (+5.1 to +15.2); `scale` 100 makes percentage points of fractions."""
    return f"{signed(scale * interval.mean, digits)} ({span(interval, scale, digits)})"


def span(interval: Interval, scale: float = 1, digits: int = 1) -> str:
    """+5.1 to +15.2."""
    return f"{signed(scale * interval.low, digits)} to {signed(scale * interval.high, digits)}"


def plus_minus(interval: Interval, scale: float = 1, digits: int = 1) -> str:
    """84.4 ± 4.1, for an interval that is symmetric; without ± where there is none."""
    return number(scale * interval.mean, digits) + _half_width(interval, scale, digits)


def difference_plus_minus(interval: Interval, scale: float = 1, digits: int = 1) -> str:
    """+10.3 ± 4.1."""
    return signed(scale * interval.mean, digits) + _half_width(interval, scale, digits)


def _half_width(interval: Interval, scale: float, digits: int) -> str:
    half = scale * (interval.high - interval.low) / 2
    return "" if math.isnan(half) else f" ± {number(half, digits)}"


def duration(seconds: float) -> str:
    """8 s, 12 min, 3 h 05 min; – when it is not known."""
    if math.isnan(seconds):
        return "–"
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if seconds >= 120 else f"{seconds:.0f} s"


def listed(parts: list[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
