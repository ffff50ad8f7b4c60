from typing import Any

import pytest

from edgeft.report.reading import View
from edgeft.report.sections.parity import hops

FAULT = {
    "layer": "blocks.03",
    "kind": "scale",
    "detail": "its output is 2 times the base's",
    "advice": "quantize again",
}


def record(**attribution: Any) -> View:  # noqa: ANN401 - JSON values
    def layer(name: str, alone: float | None) -> dict[str, Any]:
        return {"layer": name, "op": "Conv", "alone": {"sqnr_db": alone}, "drifted": {"sqnr_db": 12.5, "cosine": 0.99}}

    layers = [layer("stem", None), *(layer(f"blocks.{i:02d}", 40.0 - i) for i in range(12))]
    found = {"n": 32, "layers": layers, "findings": [], "judged": True, **attribution}
    hop = {"name": "fp32 > int8", "n": 100}
    return View({"choice": {"chosen": "int8"}, "verify": {"hops": [hop], "attribution": found}})


def test_the_layers_that_add_most_stand_first() -> None:
    page = str(hops(record()))
    assert "the 8 of 13 layers that add most, on 32 test images" in page
    shown = [name for name in (f"blocks.{i:02d}" for i in range(12)) if name in page]
    assert shown == [f"blocks.{i:02d}" for i in range(4, 12)]
    assert page.index("blocks.11") < page.index("blocks.04")
    assert "No layer is at fault" in page


def test_a_layer_at_fault_is_named_with_what_mends_it() -> None:
    page = str(hops(record(findings=[FAULT])))
    assert "blocks.03, scale: " in page
    assert "quantize again" in page
    assert "No layer is at fault" not in page


def test_layers_with_other_weights_by_design_are_not_judged() -> None:
    assert "No layer is judged" in str(hops(record(judged=False)))


@pytest.mark.parametrize("missing", [{"layers": []}, {"layers": None}])
def test_without_layers_nothing_is_said(missing: dict[str, Any]) -> None:
    assert "Layer by layer" not in str(hops(record(**missing)))
