"""Options that hold several numbers or a share: "123.7,116.3,103.5", "3,224,224", "5%"."""

import math

from edgeft.core.errors import UsageError


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers of `text`, None where the option was not given.

    Raises:
        UsageError: a part is no finite number.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: expected numbers separated by commas") from error
    if not all(map(math.isfinite, values)):
        raise UsageError(f"{option} {text!r}: every number must be finite")
    return values


def counts(option: str, text: str | None) -> tuple[int, ...] | None:
    """Return the whole numbers of `text`, at least 1 each; None where the option was not given.

    Raises:
        UsageError: a part is no whole number above 0.
    """
    values = numbers(option, text)
    if values is None:
        return None
    if any(value < 1 or value != int(value) for value in values):
        raise UsageError(f"{option} {text!r}: expected whole numbers of at least 1, separated by commas")
    return tuple(map(int, values))


def share(option: str, text: str) -> float:
    """Return a share: "5%" and "0.05" are 0.05.

    Raises:
        UsageError: it is no number, or below 0.
    """
    bare = text.strip()
    percent = bare.endswith("%")
    (value,) = numbers(option, bare.removesuffix("%").replace(",", " ")) or (0.0,)
    if value < 0:
        raise UsageError(f"{option} {text!r}: must not be below 0")
    if not percent and value >= 1:
        raise UsageError(
            f"{option} {text!r}: that is {value:.0%}", hint=f"write {option} {bare}% for {value:g} percent"
        )
    return value / 100 if percent else value
