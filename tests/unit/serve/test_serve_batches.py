"""Batches: run where they give the answers of one at a time, refused where they do not."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeft.bundle.pack import Parts, pack
from edgeft.core.errors import IntegrityError, UsageError
from edgeft.runtime import load as load_predictor
from edgeft.serve import opening
from edgeft.serve.opening import load

Make = Callable[..., Any]
PNG = {"content-type": "image/png"}


def test_images_that_wait_together_are_one_batch_and_decided_as_alone(
    serving: Make, tiny_bundle: Path, tiny_images: Path
) -> None:
    one = serving(tiny_bundle, held=True, workers=1, max_batch=4, max_wait_ms=0)
    paths = sorted(tiny_images.glob("*/[0-7].*"))[:13]
    bodies = [path.read_bytes() for path in paths]
    bodies[6] = b"no image"

    async def go() -> tuple[list[Any], str]:
        async with one.caller() as client:
            waiting = [asyncio.create_task(client.post("/predict", content=body, headers=PNG)) for body in bodies]
            await one.until(began=1, taken=len(bodies))
            one.held.let_go()
            return await asyncio.gather(*waiting), (await client.get("/metrics")).text

    found, page = asyncio.run(go())
    alone = load_predictor(tiny_bundle).predict(paths)
    for index, (answer, expected) in enumerate(zip(found, alone, strict=True)):
        if index == 6:
            assert answer.status_code == 400  # its neighbours are decided all the same
            continue
        (decided,) = answer.json()["predictions"]
        assert decided["label"] == expected.label
        # Another order of float sums moves a score by about 1e-7.
        np.testing.assert_allclose(list(decided["scores"].values()), expected.scores, rtol=0, atol=1e-6)
    assert "edgeft_batch_size_sum 12.0" in page
    (count,) = [line for line in page.splitlines() if line.startswith("edgeft_batch_size_count")]
    assert float(count.split()[1]) <= 5  # the first may be alone, then four at a time


def dynamic(path: Path, graph: Path) -> Path:
    """Write the tiny graph with features that are quantized as they come, by the range of the whole batch."""
    model = onnx.load(graph)
    (gemm,) = (node for node in model.graph.node if node.op_type == "Gemm")
    at = list(model.graph.node).index(gemm)
    model.graph.node.insert(at, helper.make_node("DynamicQuantizeLinear", ["features"], ["q", "scale", "zero"]))
    model.graph.node.insert(at + 1, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["coarse"]))
    gemm.input[0] = "coarse"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("size", [2, 7, 16, 40])
def test_batches_are_proven_on_the_golden_vectors(tiny_bundle: Path, size: int) -> None:
    assert load(tiny_bundle, threads=1, max_batch=size).manifest.name == "tiny"


def test_a_graph_that_quantizes_a_whole_batch_is_refused(tiny_parts: Parts, tiny_graph: Path, tmp_path: Path) -> None:
    parts = replace(tiny_parts, model=dynamic(tmp_path / "dynamic.onnx", tiny_graph))
    pack(tmp_path / "dist", parts)
    assert load(tmp_path / "dist", threads=1, max_batch=1).manifest.name == "tiny"
    with pytest.raises(UsageError, match=r"differs by .* from the one alone, allowed 1e-05") as raised:
        load(tmp_path / "dist", threads=1, max_batch=4)
    assert raised.value.hint
    assert "without --max-batch" in raised.value.hint


def test_texts_are_not_batched(text_bundle: Path) -> None:
    assert load(text_bundle, threads=1, max_batch=1).takes_texts
    with pytest.raises(UsageError, match="words decides texts"):
        load(text_bundle, threads=1, max_batch=2)


def test_a_bundle_is_verified_before_it_is_served(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    whole = opening.check
    monkeypatch.setattr(opening, "check", lambda *given, **named: checked.append(given) or whole(*given, **named))
    load(tiny_bundle, threads=1, max_batch=1)
    assert checked == [(tiny_bundle,)]
    other = replace(whole(tiny_bundle), content_digest="0" * 64)
    monkeypatch.setattr(opening, "check", lambda *_, **__: other)
    with pytest.raises(IntegrityError, match="exchanged while it was opened"):
        load(tiny_bundle, threads=1, max_batch=1)
    model = tiny_bundle / "model.onnx"
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match=r"model\.onnx: sha256"):
        load(tiny_bundle, threads=1, max_batch=1)
