"""What /predict answers: decisions as `edgeft predict` makes them, or what is wrong with the body."""

import asyncio
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from edgeft.runtime import load
from edgeft.serve.app import Service

Make = Callable[..., Any]
PNG = {"content-type": "image/png"}
JSON = {"content-type": "application/json"}


def sent(service: Service, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
    answer = TestClient(service.app).post("/predict", content=body, headers={"content-type": content_type})
    return answer.status_code, answer.json()


def png(width: int, height: int) -> bytes:
    """A PNG that promises that many pixels and holds none."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("file", "content_type"), [
    ("red/0.png", "image/png"), ("green/1.jpg", "image/jpeg"), ("blue/2.png", "application/octet-stream"),
    ("blue/2.png", "Image/PNG; charset=binary"),
])  # fmt: skip
def test_an_image_is_decided_as_predict_does(
    serving: Make, tiny_bundle: Path, tiny_images: Path, file: str, content_type: str
) -> None:
    one = serving(tiny_bundle)
    status, answer = sent(one.service, (tiny_images / file).read_bytes(), content_type)
    (expected,) = load(tiny_bundle).predict([tiny_images / file])
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert status == 200
    assert (answer["bundle"], answer["content_digest"]) == ("tiny", manifest["content_digest"])
    (found,) = answer["predictions"]
    assert found["label"] == file.partition("/")[0] == expected.label
    assert found["scores"] == dict(zip(manifest["classes"], expected.scores, strict=True))
    assert (found["index"], found["score"], found["review"]) == (expected.index, max(expected.scores), False)
    assert set(found) == {"label", "index", "score", "review", "scores"}


def test_texts_are_decided_one_by_one(serving: Make, text_bundle: Path) -> None:
    one = serving(text_bundle, workers=2)
    texts = ["the red sky", "a green house under old trees", "blue water"]
    expected = [one.label for one in load(text_bundle).predict(texts)]
    status, answer = sent(one.service, json.dumps({"texts": texts}).encode(), "application/json")
    assert (status, [one["label"] for one in answer["predictions"]]) == (200, expected)
    status, answer = sent(one.service, texts[1].encode(), "text/plain; charset=utf-8")
    assert (status, [one["label"] for one in answer["predictions"]]) == (200, expected[1:2])


@pytest.mark.parametrize(
    ("content_type", "body", "status", "error"),
    [
        ("text/plain", b"\xff", 400, "the text is not UTF-8 (invalid start byte at byte 0)"),
        ("text/plain", b" ", 400, "text 0 is empty"),
        ("text/plain", b"red\tblue", 400, "text 0: 2 texts, the model takes 1"),
        ("application/json", b"{", 400, "the body is not JSON"),
        ("application/json", b"[" * 100_000, 400, "the body is not JSON"),
        ("application/json", b'{"texts": "red"}', 400, 'the body is not an object with the one key "texts", a list'),
        ("application/json", b'{"texts": []}', 400, 'the body is not an object with the one key "texts", a list'),
        ("application/json", b'{"texts": ["a"], "x": 1}', 400, "the body is not an object with the one key"),
        ("application/json", b'{"texts": ["red", 7]}', 400, "text 1 is neither a text nor two"),
        ("application/json", b'{"texts": [["a", "b", "c"]]}', 400, "text 0 is neither a text nor two"),
        ("application/json", b'{"texts": ["red", ["sky", "sea"]]}', 400, "text 1: 2 texts, the model takes 1"),
        ("application/json", b'{"texts": ["red", ""]}', 400, "text 1 is empty"),
        ("application/json", rb'{"texts": ["\ud800"]}', 400, "text 0 holds half of a surrogate pair"),
        ("application/json", json.dumps({"texts": ["red"] * 9}).encode(), 413, "9 texts, at most 8 are taken at once"),
        ("image/png", b"x", 415, "the body's type is image/png, this bundle decides texts"),
    ],
)
def test_texts_that_cannot_be_used_are_named(
    serving: Make, text_bundle: Path, content_type: str, body: bytes, status: int, error: str
) -> None:
    one = serving(text_bundle, queue=7)
    found, answer = sent(one.service, body, content_type)
    assert (found, set(answer)) == (status, {"error", "hint"})
    assert answer["error"].startswith(error)
    assert sent(one.service, b"the red sky", "text/plain")[0] == 200  # no place is lost


def test_what_is_no_image_is_400_and_the_message_names_nothing_local(
    serving: Make, tiny_bundle: Path, image: bytes, tiny_images: Path
) -> None:
    jpeg = (tiny_images / "red" / "1.jpg").read_bytes()
    broken = {
        "empty": (b"", "the file is empty"),
        "noise": (bytes(range(256)), "not an image of a known format"),
        "gif": (b"GIF89a" + bytes(40), "not an image of a known format"),
        "cut png": (image[: len(image) // 2], "the image cannot be decoded"),
        "cut jpeg": (jpeg[: len(jpeg) // 2], "the image cannot be decoded"),
        "bomb below Pillow's limit": (png(8300, 8300), "8300x8300 pixels, at most 67108864 are decoded"),
        "bomb": (png(20_000, 20_000), "could be decompression bomb"),
    }
    one = serving(tiny_bundle)
    for name, (body, error) in broken.items():
        status, answer = sent(one.service, body, "image/png")
        assert status == 400, name
        assert error in answer["error"], name
        assert answer["error"].startswith("image 0: "), name
        assert not re.search(r"/\w|\b0x[0-9a-f]{4}|\.py", answer["error"]), answer
    assert sent(one.service, image, "image/png")[0] == 200


@pytest.mark.parametrize("content_type", ["", "application/x-www-form-urlencoded", "image/gif", "text/plain"])
def test_another_type_is_415(serving: Make, tiny_bundle: Path, image: bytes, content_type: str) -> None:
    status, answer = sent(serving(tiny_bundle).service, image, content_type)
    assert status == 415
    assert f"the body's type is {content_type or 'not given'}, this bundle decides images" == answer["error"]
    assert "image/jpeg" in answer["hint"]


def test_other_paths_and_methods_say_what_there_is(serving: Make, tiny_bundle: Path) -> None:
    client = TestClient(serving(tiny_bundle).service.app)
    for found, status in ((client.get("/"), 404), (client.get("/predict"), 405)):
        assert found.status_code == status
        assert found.json()["hint"] == "POST /predict, GET /healthz or GET /metrics"
    assert client.get("/predict").headers["allow"] == "POST"


def test_what_should_not_happen_is_500_and_the_worker_lives(serving: Make, tiny_bundle: Path, image: bytes) -> None:
    one = serving(tiny_bundle)
    predictor = one.service._predictor
    whole = predictor.encode, predictor.decide_together

    def fails(*_: object) -> Any:  # noqa: ANN401 - nothing
        raise RuntimeError("/secret/path")

    async def go() -> list[tuple[int, str]]:
        async with one.caller() as client:
            predictor.encode = fails
            first = await client.post("/predict", content=image, headers=PNG)
            predictor.encode, predictor.decide_together = whole[0], fails  # type: ignore[method-assign]
            second = await client.post("/predict", content=image, headers=PNG)
            predictor.decide_together = whole[1]  # type: ignore[method-assign]
            third = await client.post("/predict", content=image, headers=PNG)
            return [(one.status_code, one.text) for one in (first, second, third)]

    found = asyncio.run(go())
    assert [status for status, _ in found] == [500, 500, 200]
    assert "internal error" in found[0][1]
    assert "secret" not in found[0][1] + found[1][1]
    assert one.taken == 0


def test_metrics_and_health_name_the_bundle(serving: Make, tiny_bundle: Path, image: bytes) -> None:
    one = serving(tiny_bundle)
    for body in (image, image, b"?"):
        sent(one.service, body, "image/png")
    client = TestClient(one.service.app)
    health = client.get("/healthz")
    digest = json.loads((tiny_bundle / "manifest.json").read_text())["content_digest"]
    assert (health.status_code, health.json()) == (200, {"status": "ok", "bundle": "tiny", "content_digest": digest})
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=")
    lines = page.text.splitlines()
    assert {'edgeft_requests_total{status="200"} 2.0', 'edgeft_requests_total{status="400"} 1.0'} <= set(lines)
    assert {"edgeft_request_seconds_count 2.0", "edgeft_batch_size_count 2.0", "edgeft_batch_size_sum 2.0"} <= set(
        lines
    )
    assert {"edgeft_queue_depth 0.0", "edgeft_in_flight 0.0", 'edgeft_requests_total{status="503"} 0.0'} <= set(lines)
    (info,) = [line for line in lines if line.startswith("edgeft_bundle_info{")]
    assert f'content_digest="{digest}"' in info
    assert 'name="tiny"' in info
