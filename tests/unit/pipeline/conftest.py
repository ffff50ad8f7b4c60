"""Models of three colours and bundles of them, and a machine that answers timing requests without a process."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeft.bundle.pack import Parts, pack
from edgeft.core.errors import DeviceError
from edgeft.pipeline.baseline import REFERENCE
from edgeft.runtime.worker import Request, Timing


@pytest.fixture
def make_model(tmp_path: Path, tiny_graph: Path) -> Callable[..., Path]:
    def make(
        name: str, *, order: Sequence[int] = (0, 1, 2), side: int | None = None, gain: float | None = None
    ) -> Path:
        """Write the tiny graph with its outputs permuted, another input size, or other weights."""
        model = onnx.load(tiny_graph)
        (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
        values = numpy_helper.to_array(weight)[:, list(order)] * (1 if gain is None else gain)
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "weight"))
        for axis in (1, 2) if side else ():
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def make_bundle(tmp_path: Path, tiny_parts: Parts, tiny_data: Path, tiny_graph: Path) -> Callable[..., Path]:
    def make(name: str, model: Path = tiny_graph, *, head: Mapping[str, Any] | None = None) -> Path:
        """Write a bundle of `model`; `head` replaces keys of the data's description."""
        data = tmp_path / f"{name}-data"
        shutil.copytree(tiny_data, data)
        described = json.loads((data / "dataset.json").read_text())
        (data / "dataset.json").write_text(json.dumps({**described, **(head or {})}))
        parts = replace(tiny_parts, name=name, model=model, data=data, gates=())
        pack(tmp_path / name, parts)
        return tmp_path / name

    return make


class Machine:
    """Answers requests: the median in ms by the name of the model's file or folder, else 10; with process noise."""

    def __init__(self, levels: Mapping[str, float] | None = None, *, noise: float = 0.005, speed: float = 1.0) -> None:
        self.levels = {REFERENCE.name: 5.0, **(levels or {})}
        self.requests: list[Request] = []
        self.dies_at: int | None = None
        self._noise, self._speed = noise, speed
        self._rng = np.random.default_rng(0)

    def __call__(self, request: Request) -> Timing:
        self.requests.append(request)
        if len(self.requests) == self.dies_at:
            raise DeviceError(f"timing {request.model}: the process ended with -9 and said: nothing")
        named = [level for name, level in self.levels.items() if name in Path(request.model).parts]
        level = (named[0] if named else 10.0) * self._speed * float(np.exp(self._rng.normal(0, self._noise)))
        return Timing(50.0, 20.0, [level] * 5, 90, 30, loop_s=0.1, cpu_s=0.1)


@pytest.fixture
def make_machine() -> Callable[..., Machine]:
    return Machine
