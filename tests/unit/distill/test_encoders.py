"""Students cut out of a text teacher: what stays keeps its weights, what goes is what matters least."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import DistilBertConfig, ElectraConfig, PretrainedConfig

from edgeft.core.errors import UsageError
from edgeft.data.dataset import Dataset
from edgeft.distill.config import StudentConfig
from edgeft.distill.encoders import cut, fewer_layers, narrowed
from edgeft.distill.importance import Judge, left_out
from edgeft.finetune.feeds import TokenFeed, Tokens
from edgeft.models import text
from edgeft.models.checkpoint import CheckpointMeta, load
from edgeft.testing.taught import Taught


class Teacher(NamedTuple):
    module: text.TextClassifier
    meta: CheckpointMeta
    judge: Judge
    tokens: Tokens


@pytest.fixture
def teacher(texts: Taught) -> Teacher:
    module, meta = load(texts.teacher)
    data = Dataset.open(texts.data)
    feed = TokenFeed(data.tokens, torch.device("cpu"))
    judge = Judge.of(feed.evaluate, torch.from_numpy(data.labels), data.indices("train"), 24, 0)
    assert isinstance(module, text.TextClassifier)
    return Teacher(module, meta, judge, feed.evaluate(data.indices("val")))


def test_units_and_heads_that_do_nothing_can_go(teacher: Teacher) -> None:
    module, meta, judge, tokens = teacher
    config = module.encoder.config
    head, inner = config.hidden_size // config.num_attention_heads, config.intermediate_size
    with torch.no_grad():
        for layer in module.encoder.encoder.layer:
            for part, rows in ((layer.intermediate.dense, slice(0, inner, 2)),):
                part.weight[rows] = 0
                part.bias[rows] = 0
    found = narrowed(module, meta, None, inner // 2, None, judge.importance(module))
    assert torch.allclose(found(tokens), module(tokens), atol=1e-5)
    assert found.encoder.config.intermediate_size == inner // 2
    smaller = narrowed(module, meta, config.hidden_size - head, None, None, judge.importance(module))
    assert smaller.encoder.config.num_attention_heads == config.num_attention_heads - 1
    assert smaller.encoder.embeddings.word_embeddings.weight.shape[1] == config.hidden_size - head
    own = {tuple(each.tolist()) for each in module.encoder.embeddings.word_embeddings.weight.T}
    assert all(tuple(each.tolist()) in own for each in smaller.encoder.embeddings.word_embeddings.weight.T)
    assert smaller(tokens).shape == module(tokens).shape


def test_importance_is_the_squared_first_order_change(teacher: Teacher) -> None:
    module, _, judge, _ = teacher
    found = judge.importance(module)
    name = "encoder.encoder.layer.0.intermediate.dense.weight"
    weight = dict(module.named_parameters())[name]
    total = torch.zeros(len(weight))
    for loss in judge.losses(module):
        module.zero_grad()
        loss.backward()
        total += (weight * weight.grad).sum(1).detach() ** 2
    assert torch.allclose(found[name], total / len(list(judge.losses(module))), rtol=1e-4, atol=1e-10)
    assert set(found) == set(dict(module.named_parameters()))
    with torch.no_grad():
        expected = functional.cross_entropy(module(judge.inputs(judge.rows)), judge.labels[judge.rows])
    assert judge.loss(module) == pytest.approx(float(expected), rel=1e-4)


def test_layers_are_chosen_by_number_name_or_error(teacher: Teacher) -> None:
    module, meta, judge, tokens = teacher
    last = cut(module, meta, StudentConfig(layers=1), None, judge)
    first = cut(module, meta, StudentConfig(layers=(0,)), None, judge)
    assert torch.equal(last.module(tokens), fewer_layers(module, meta, [1])(tokens))
    assert torch.equal(first.module(tokens), fewer_layers(module, meta, [0])(tokens))
    kept = min((judge.loss(fewer_layers(module, meta, [number])), number) for number in range(2))[1]
    chosen = cut(module, meta, StudentConfig(layers=1, choose="error"), None, judge)
    assert torch.equal(chosen.module(tokens), fewer_layers(module, meta, [kept])(tokens))
    assert left_out(["a", "b", "c"], 2, lambda gone: {"a": 3, "b": 1, "c": 2}[gone[-1]]) == ["b", "c"]


def test_a_share_of_the_multiply_adds_comes_out_of_the_feed_forward(teacher: Teacher) -> None:
    module, meta, judge, _ = teacher
    found = cut(module, meta, StudentConfig(), 0.2, judge).module
    width, units = module.encoder.config.hidden_size, module.encoder.config.intermediate_size
    left = found.encoder.config.intermediate_size
    assert 2 * width * (units - left) / (4 * width**2 + 2 * width * units) >= 0.2
    assert left % 8 == 0
    both = cut(module, meta, StudentConfig(layers=1, feed_forward=8), None, judge)
    assert both.module.encoder.config.num_hidden_layers == 1
    assert both.module.encoder.config.intermediate_size == 8
    assert len(both.notes) == 2


def test_what_cannot_be_cut_is_refused(teacher: Teacher) -> None:
    module, meta, judge, _ = teacher
    width = module.encoder.config.hidden_size
    for student, share, said in (
        ({"hidden": width - 1}, None, r"hidden: \d+ is no multiple of a head's"),
        ({"hidden": 2 * width}, None, r"hidden: \d+, and the teacher has"),
        ({"feed_forward": 10_000}, None, r"feed_forward: 10000, and the teacher has"),
        ({"layers": (0, 7)}, None, "has the layers 0 to 1"),
        ({"layers": (1, 0)}, None, "has the layers 0 to 1"),
        ({}, 0.99, "the feed-forward has"),
        ({"feed_forward": 8}, 0.1, "narrows the feed-forward, too"),
    ):
        with pytest.raises(UsageError, match=said):
            cut(module, meta, StudentConfig(**student), share, judge)
    odd = text.from_config(
        ElectraConfig(hidden_size=8, embedding_size=4, num_hidden_layers=1, vocab_size=17).to_dict(), 3, "mean", 0.0
    )
    with pytest.raises(UsageError, match="none of the places that BERT's tensors have"):
        narrowed(odd, meta, 4, 8, None, {name: torch.ones(len(each)) for name, each in odd.named_parameters()})
    assert np.isfinite(judge.loss(module))


@pytest.mark.parametrize(
    "config",
    [
        DistilBertConfig(dim=24, hidden_dim=48, n_heads=3, n_layers=2, vocab_size=60),
        ElectraConfig(
            hidden_size=24,
            embedding_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=48,
            vocab_size=60,
        ),
    ],
    ids=["distilbert", "electra"],
)
def test_encoders_with_other_names_are_cut_alike(config: PretrainedConfig, teacher: Teacher) -> None:
    torch.manual_seed(0)
    module = text.from_config(config.to_dict(), 3, "mean", 0.0).eval()
    meta = replace(teacher.meta, encoder=text.config_json(module))
    ids = torch.randint(0, 60, (4, 9))
    tokens = {**teacher.tokens, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    layers = [part for part in module.modules() if type(part).__name__ in {"TransformerBlock", "ElectraLayer"}]
    with torch.no_grad():
        for layer in layers:
            first = getattr(layer, "ffn", layer).lin1 if hasattr(layer, "ffn") else layer.intermediate.dense
            first.weight[::2] = 0
            first.bias[::2] = 0
    importance = {
        name: each.detach().abs().flatten(1).sum(1) if each.ndim > 1 else each.detach().abs()
        for name, each in module.named_parameters()
    }
    found = narrowed(module, meta, None, 24, None, importance)
    assert torch.allclose(found(tokens), module(tokens), atol=1e-5)
    smaller = narrowed(module, meta, 16, 24, None, importance)
    assert smaller(tokens).shape == (4, 3)
    assert smaller.encoder.embeddings.word_embeddings.weight.shape == (60, 16)
    assert fewer_layers(module, meta, [1])(tokens).shape == (4, 3)
