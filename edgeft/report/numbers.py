"""How numbers are written: fixed decimals, the unit beside the value, intervals in words, never a bare "-0.0"."""

import math

MINUTE_S = 60.0
HOUR_S = 3600.0
_SI = 1000.0
_INTERVAL_DECIMALS = {"pp": 2, "ratio": 3, "ms": 2}
MISSING = "not recorded"


def fixed(value: float, decimals: int) -> str:
    """Return `value` with `decimals` decimals; a rounded zero has no sign."""
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def significant(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits, plain notation between 1e-4 and 1e6."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -5 < magnitude < 6:  # noqa: PLR2004 - the range of plain notation
        return f"{value:.{digits - 1}e}"
    return fixed(value, max(0, digits - 1 - magnitude))


def general(value: float) -> str:
    """Return a limit or tolerance as it was set: at most four significant digits, no padding ("0.001", "1.2e-05")."""
    return f"{value:.4g}"


def percent(fraction: float | None, decimals: int = 1) -> str:
    """Return 0.761 as "76.1 %"."""
    return MISSING if fraction is None else f"{fixed(100 * fraction, decimals)} %"


def points(value_pp: float | None, decimals: int = 1) -> str:
    """Return 0.31 as "0.3 pp"."""
    return MISSING if value_pp is None else f"{fixed(value_pp, decimals)} pp"


def span(interval: tuple[float, float] | None, decimals: int, factor: float = 1.0) -> str:
    """Return (0.1, 0.5) as "0.1 to 0.5"; "" without an interval."""
    if interval is None:
        return ""
    low, high = interval
    return f"{fixed(factor * low, decimals)} to {fixed(factor * high, decimals)}"


def count(number: float | None) -> str:
    """Return 10000 as "10 000"."""
    return MISSING if number is None else f"{round(number):,}".replace(",", " ")


def size(number_bytes: float | None) -> str:
    """Return bytes in SI units: "4.91 MB"."""
    if number_bytes is None:
        return MISSING
    value = number_bytes
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < _SI or unit == "GB":
            break
        value /= _SI
    return f"{round(value)} B" if unit == "B" else f"{significant(value)} {unit}"


def duration(seconds: float | None) -> str:
    """Return seconds as "0.42 s", "1 min 12 s" or "2 h 5 min"."""
    if seconds is None:
        return MISSING
    if seconds < MINUTE_S:
        return f"{significant(seconds, 2) if seconds < 10 else round(seconds)} s"  # noqa: PLR2004 - two digits
    if seconds < HOUR_S:
        return f"{int(seconds // MINUTE_S)} min {int(seconds % MINUTE_S)} s"
    return f"{int(seconds // HOUR_S)} h {int(seconds % HOUR_S // MINUTE_S)} min"


def milliseconds(value_ms: float | None) -> str:
    """Return "4.21 ms"."""
    return MISSING if value_ms is None else f"{significant(value_ms)} ms"


def quantity(value: float | None, unit: str) -> str:
    """Return a gate's `value` in its `unit`; points get two decimals, so that a value near its limit stays apart."""
    if value is None:
        return MISSING
    if unit in _INTERVAL_DECIMALS:
        number = fixed(value, _INTERVAL_DECIMALS[unit])
        return number if unit == "ratio" else f"{number} {unit}"
    if unit == "bytes":
        return size(value)
    if unit in {"fraction", "agreement"}:
        return percent(value, 2)
    return f"{general(value)} {unit}".strip()


def quantity_span(interval: tuple[float, float] | None, unit: str) -> str:
    """Return a gate's `interval` as "0.10 to 0.52"; "" where the value is exact."""
    if interval is None:
        return ""
    if unit in {"fraction", "agreement"}:
        return f"{span(interval, 2, 100)} %"
    if unit in _INTERVAL_DECIMALS:
        return span(interval, _INTERVAL_DECIMALS[unit])
    return " to ".join(general(end) for end in interval)
