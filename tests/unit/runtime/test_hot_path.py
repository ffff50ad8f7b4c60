"""Pixels of the model's size reach the session uncopied, and threads that share a predictor get what one alone gets."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeft.data.dataset import Dataset
from edgeft.runtime import load
from edgeft.runtime.encode import ImageEncoder
from edgeft.runtime.preprocess import Filter, InputContract, Resize
from edgeft.runtime.session import Model
from edgeft.runtime.text import TextContract, TextEncoder

SIDE = 16
THREADS = 8

Contract = Callable[..., InputContract]


@pytest.fixture
def contract() -> Contract:
    def make(
        height: int = SIDE,
        width: int = SIDE,
        resize: Resize = "squash",
        resize_to: int | None = None,
        filter_: Filter = "lanczos",
    ) -> InputContract:
        ends = ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
        return InputContract(height, width, resize, resize_to, filter_, *ends)

    return make


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What reaches the session."""
    arrays: list[np.ndarray] = []
    real = Model.scores

    def spy(self: Model, feeds: Mapping[str, np.ndarray]) -> Any:  # noqa: ANN401 - as it is
        arrays.extend(feeds.values())
        return real(self, feeds)

    monkeypatch.setattr(Model, "scores", spy)
    return arrays


def test_pixels_that_fit_are_not_copied(tiny_bundle: Path, seen: list[np.ndarray]) -> None:
    predictor = load(tiny_bundle)
    one, many = noise(SIDE, SIDE, 3), noise(4, SIDE, SIDE, 3)
    predictor.predict([one, many[2]])
    predictor.decide({"pixels": many})
    assert [array.shape for array in seen] == [(1, SIDE, SIDE, 3)] * 6
    assert np.shares_memory(seen[0], one)
    assert all(np.shares_memory(array, many) for array in seen[1:])


def test_pixels_that_do_not_fit_are_left_alone(tiny_bundle: Path, seen: list[np.ndarray]) -> None:
    given = noise(SIDE + 1, SIDE, 3)
    before = given.copy()
    load(tiny_bundle).predict([given])
    assert not np.shares_memory(seen[0], given)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("filter_", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("resize", "resize_to"), [("squash", None), ("shorter_side", SIDE)])
def test_nothing_done_is_what_pillow_would_do(
    contract: Contract, filter_: Filter, resize: Resize, resize_to: int | None
) -> None:
    pixels = noise(SIDE, SIDE, 3)
    found = ImageEncoder(contract(resize=resize, resize_to=resize_to, filter_=filter_)).pixels(pixels, "x")
    assert found is pixels
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), filters()[filter_])))


def filters() -> dict[str, Image.Resampling]:
    return {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }


def test_a_crop_is_still_cut_out_of_pixels_of_the_models_size(contract: Contract) -> None:
    pixels = noise(SIDE, SIDE, 3)
    found = ImageEncoder(contract(resize="shorter_side", resize_to=SIDE + 4)).pixels(pixels, "x")
    larger = np.asarray(Image.fromarray(pixels).resize((SIDE + 4, SIDE + 4), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(found, larger[2:-2, 2:-2])


def test_a_wide_input_is_not_taken_for_a_square_one(contract: Contract) -> None:
    wide = contract(height=SIDE, width=2 * SIDE, resize="shorter_side", resize_to=2 * SIDE)
    pixels = noise(SIDE, 2 * SIDE, 3)
    larger = np.asarray(Image.fromarray(pixels).resize((4 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS))
    expected = larger[SIDE // 2 : SIDE // 2 + SIDE, SIDE : 3 * SIDE]
    np.testing.assert_array_equal(ImageEncoder(wide).pixels(pixels, "x"), expected)


def test_a_view_with_gaps_is_decided_by_its_pixels(tiny_bundle: Path) -> None:
    predictor, bgr = load(tiny_bundle), noise(SIDE, SIDE, 3)
    (found,) = predictor.predict([bgr[..., ::-1]])
    (expected,) = predictor.predict([np.ascontiguousarray(bgr[..., ::-1])])
    assert found == expected


def test_threads_get_the_same_bits_as_one_alone(tiny_bundle: Path) -> None:
    predictor = load(tiny_bundle)
    images = [noise(*size, 3, seed=seed) for seed, size in enumerate([(SIDE, SIDE), (40, 30)] * 16)]
    alone = predictor.predict(images)
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(predictor.predict, [images] * THREADS))
    assert together == [alone] * THREADS


def test_threads_get_the_same_bits_of_texts(text_bundle: Path) -> None:
    predictor = load(text_bundle)
    texts = [" ".join(["good", "bad", "day"][: 1 + index % 3] * (1 + index % 5)) for index in range(30)]
    alone = predictor.predict(texts)
    assert len({one.scores for one in alone}) > 3
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(predictor.predict, [texts] * THREADS))
    assert together == [alone] * THREADS


def test_decide_takes_what_encode_gives(tiny_bundle: Path, tiny_images: Path) -> None:
    predictor, path = load(tiny_bundle), tiny_images / "blue" / "0.png"
    (expected,), (found,) = predictor.predict([path]), predictor.decide(predictor.encode(path, "x"))
    assert (found.label, found.index, found.scores, found.review) == ("blue", 2, expected.scores, False)


def test_measuring_lengths_leaves_the_cutting_on(toy_texts: Path) -> None:
    contract = Dataset.open(toy_texts).contract
    assert isinstance(contract, TextContract)
    encoder = TextEncoder(contract, (toy_texts / "tokenizer.json").read_bytes())
    long = "good day " * contract.max_length
    assert encoder.lengths([long])[0] > contract.max_length
    assert encoder(long)["input_ids"].shape == (1, contract.max_length)
