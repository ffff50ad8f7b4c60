"""TensorRT's Python API as NVIDIA's wheel declares it, with the answers that a test gives: there is no GPU here.

A name that the wheel does not have is an AttributeError, a call that fits no declared signature a TypeError.
"""

import enum
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_DECLARED = json.loads((Path(__file__).parents[3] / "golden/tensorrt_signatures.json").read_text())
__version__ = _DECLARED["version"]
calls: list[tuple[Any, ...]] = []
answers: dict[str, Any] = {}
_PLAIN = {"bool": True, "str": "", "int": 0, "None": None}
_SHORT = {"IParserError": "ParserError"}
DataType = enum.IntEnum("DataType", _DECLARED["enums"]["DataType"])


def nptype(dtype: Any) -> Any:  # noqa: ANN401
    return {DataType.FLOAT: np.float32, DataType.UINT8: np.uint8}[dtype]


class ILogger:
    Severity = enum.IntEnum("Severity", _DECLARED["enums"]["ILogger.Severity"])


class Double:
    def __init__(self, kind: str, *arguments: object) -> None:
        object.__setattr__(self, "kind", kind)
        if arguments:
            self.check("__init__", arguments, {})

    def check(self, name: str, arguments: tuple[object, ...], named: dict[str, object]) -> str:
        """Return what the declared overload that takes these arguments returns."""
        for each in _DECLARED["classes"][self.kind][name]:
            given = [*each["parameters"][: len(arguments)], *named]
            fits = len(set(given)) == len(arguments) + len(named) and set(given) <= set(each["parameters"])
            if fits and set(each["parameters"][: each["required"]]) <= set(given):
                return str(each["returns"])
        raise TypeError(f"{self.kind}.{name} takes no {arguments} {named}")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        declared = _DECLARED["classes"][self.kind].get(name)
        if declared is None:
            raise AttributeError(f"{self.kind} has no {name}")
        if declared == "property":
            return answers[f"{self.kind}.{name}"]
        return self._method(name)

    def _method(self, name: str) -> Callable[..., Any]:
        def call(*arguments: object, **named: object) -> Any:  # noqa: ANN401
            returns = self.check(name, arguments, named)
            calls.append((f"{self.kind}.{name}", *arguments, *named.items()))
            key = f"{self.kind}.{name}"
            if key in answers:
                return answers[key](*arguments) if callable(answers[key]) else answers[key]
            return _PLAIN[returns] if returns in _PLAIN else Double(_SHORT.get(returns, returns))

        return call

    def __setattr__(self, name: str, value: object) -> None:
        if _DECLARED["classes"][self.kind].get(name) != "property":
            raise AttributeError(f"{self.kind} has no property {name}")
        calls.append((f"{self.kind}.{name}", value))

    def __bytes__(self) -> bytes:
        return bytes(answers[f"{self.kind}.bytes"])


def Dims(shape: Any) -> tuple[int, ...]:  # noqa: ANN401, N802
    return tuple(shape)


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name in _DECLARED["enums"]:
        return enum.IntEnum(name, _DECLARED["enums"][name], start=0)
    if name in _DECLARED["classes"]:
        return lambda *arguments: Double(name, *arguments)
    raise AttributeError(f"tensorrt has no {name}")
