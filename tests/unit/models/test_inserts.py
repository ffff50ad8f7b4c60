"""What is put into a model and stays there: against the same computed by hand, through a checkpoint, and in ONNX."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import timm
import torch
from torch import nn

from edgeft.core.errors import DataError, UsageError
from edgeft.graph.export import build, build_text
from edgeft.graph.taps import with_outputs
from edgeft.models import checkpoint, insertion, inserts, text
from edgeft.models.checkpoint import CheckpointMeta
from edgeft.models.config import ModelConfig, TextOptions
from edgeft.models.inserts import Insert
from edgeft.runtime.preprocess import InputContract
from edgeft.runtime.text import TextContract
from edgeft.testing.toys import write_encoder

SIZE = 5
CONTRACT = TextContract(16, "", 0, pair=False, types=False, tokenizer="x")


@pytest.fixture
def texts(tmp_path: Path) -> text.TextClassifier:
    write_encoder(tmp_path, 60)
    torch.manual_seed(1)
    module = text.from_folder(tmp_path, 3, "mean", 0.0).eval()
    nn.init.normal_(module.classifier.weight)
    return module


def tokens() -> dict[str, torch.Tensor]:
    ids = torch.randint(4, 60, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def shaken_(module: nn.Module) -> nn.Module:
    """Give every inserted parameter a value that matters."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in module.named_parameters():
        if inserts.is_inserted(name):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return module.eval()


def put_(module: nn.Module, kind: inserts.Kind) -> nn.Module:
    insertion.insert_(module, insertion.plan(module, kind, SIZE))
    return shaken_(module)


@torch.no_grad()
def test_an_adapter_is_a_bottleneck_with_a_shortcut(texts: text.TextClassifier) -> None:
    dense = texts.get_submodule("encoder.encoder.layer.1.output.dense")
    x = torch.randn(2, 4, 48)
    plain = dense(x)
    before = texts(tokens())
    insertion.insert_(texts, insertion.plan(texts, "adapter", SIZE))
    torch.testing.assert_close(texts(tokens()), before, atol=0, rtol=0)  # at birth it changes nothing
    shaken_(texts)
    part = dense.get_submodule(inserts.PLACE)
    own = dict(part.named_parameters())
    inner = torch.relu(plain @ own["down.weight"].T + own["down.bias"])
    torch.testing.assert_close(dense(x), plain + inner @ own["up.weight"].T + own["up.bias"])


@torch.no_grad()
def test_a_prompt_is_seen_by_attention_and_not_pooled(texts: text.TextClassifier) -> None:
    """As transformers' own encoder computes it from embeddings with the prompts in front of the text."""
    put_(texts, "prompt")
    encoder = texts.encoder
    given = tokens()
    vectors = dict(texts.named_parameters())[f"encoder.embeddings.{inserts.PLACE}.vectors"]
    words = encoder.embeddings(input_ids=given["input_ids"])
    states = torch.cat([vectors.expand(3, -1, -1), words], dim=1)
    mask = torch.cat([torch.ones(3, SIZE), given["attention_mask"].float()], dim=1)
    bias = (1 - mask)[:, None, None, :] * -1e4
    for layer in encoder.encoder.layer:
        found = layer(states, bias)
        states = found[0] if isinstance(found, tuple) else found
    kept = given["attention_mask"][:, :, None]
    pooled = (states[:, SIZE:] * kept).sum(1) / kept.sum(1)
    torch.testing.assert_close(texts(given), texts.classifier(pooled), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_prefix_is_keys_and_values_before_the_others(texts: text.TextClassifier) -> None:
    put_(texts, "prefix")
    owner = texts.get_submodule("encoder.encoder.layer.0.attention.self")
    own = dict(owner.get_submodule(inserts.PLACE).named_parameters())
    x = torch.randn(2, 6, 32)
    query, key, value = (
        getattr(owner, name)(x).view(2, 6, 2, 16).transpose(1, 2) for name in ("query", "key", "value")
    )
    key = torch.cat([own["keys"].expand(2, -1, -1, -1), key], dim=2)
    value = torch.cat([own["values"].expand(2, -1, -1, -1), value], dim=2)
    weights = (query @ key.transpose(2, 3) / 4).softmax(-1)
    expected = (weights @ value).transpose(1, 2).reshape(2, 6, 32)
    torch.testing.assert_close(owner(x, torch.zeros(2, 1, 1, 6))[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["adapter", "prompt", "prefix"])
def test_texts_export_with_them_at_every_length(texts: text.TextClassifier, kind: inserts.Kind) -> None:
    put_(texts, kind)
    with torch.no_grad():
        fused = texts(tokens()).numpy()
    graph, _, _ = build_text(texts, CONTRACT, 20)
    session = ort.InferenceSession(with_outputs(graph, ["logits"]).SerializeToString())
    feeds = {name: values.numpy() for name, values in tokens().items()}
    np.testing.assert_allclose(session.run(["logits"], feeds)[0], fused, atol=1e-4, rtol=1e-4)
    short = {name: values[:1, :4] for name, values in feeds.items()}
    with torch.no_grad():
        expected = texts({name: torch.from_numpy(values) for name, values in short.items()}).numpy()
    np.testing.assert_allclose(session.run(["logits"], short)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("test_resnet", "adapter"),
        ("test_efficientnet", "adapter"),
        ("test_convnext", "adapter"),
        ("test_vit", "adapter"),
        ("test_vit", "prompt"),
    ],
)
def test_images_export_with_them(name: str, kind: inserts.Kind) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=3).eval()
    with torch.no_grad():
        before = module(torch.zeros(1, 3, 160, 160))
        put_(module, kind)
        assert float((module(torch.zeros(1, 3, 160, 160)) - before).abs().max()) > 1e-3
    contract = InputContract(160, 160, "squash", None, "bilinear", (0.0,) * 3, (255.0,) * 3)
    graph, _, _ = build(module, contract, 20)
    session = ort.InferenceSession(with_outputs(graph, ["logits"]).SerializeToString())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    (fed,) = session.get_inputs()
    with torch.no_grad():
        expected = module(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).numpy()
    np.testing.assert_allclose(session.run(["logits"], {fed.name: pixels})[0], expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_prompts_of_a_vision_transformer_are_not_pooled(pool: str) -> None:
    torch.manual_seed(0)
    module = timm.create_model("test_vit", num_classes=3, global_pool=pool).eval()
    images = torch.randn(2, 3, 160, 160)
    seen: list[tuple[int, ...]] = []
    module.norm.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        module(images)
        put_(module, "prompt")
        module(images)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", ["adapter", "prompt", "prefix"])
def test_a_checkpoint_keeps_them(texts: text.TextClassifier, kind: inserts.Kind, tmp_path: Path) -> None:
    put_(texts, kind)
    config = ModelConfig(base="transformers", weights="x", text=TextOptions(max_length=16))
    folder = tmp_path / "saved"
    folder.mkdir()
    checkpoint.save(folder, texts, CheckpointMeta.of(texts, config, ("a", "b", "c"), CONTRACT))
    loaded, meta = checkpoint.load(folder)
    assert [each.kind for each in meta.inserts] == [kind]
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens()), texts(tokens()), atol=0, rtol=0)


def test_the_same_seed_gives_the_same_values_and_leaves_torchs_own(texts: text.TextClassifier) -> None:
    planned = insertion.plan(texts, "prefix", SIZE)
    before = torch.get_rng_state()
    insertion.insert_(texts, planned, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    first = [p.clone() for n, p in texts.named_parameters() if inserts.is_inserted(n)]
    assert len(first) == 4
    assert not torch.equal(first[0], first[2])


def test_refusals(texts: text.TextClassifier) -> None:
    convolutions = timm.create_model("test_resnet")
    with pytest.raises(UsageError, match="prompt has no place in ResNet"):
        insertion.plan(convolutions, "prompt", SIZE)
    with pytest.raises(UsageError, match="prefix has no place in ResNet"):
        insertion.plan(convolutions, "prefix", SIZE)
    with pytest.raises(UsageError, match="no module that ends in nothing"):
        insertion.plan(texts, "adapter", SIZE, ("nothing",))
    with pytest.raises(UsageError, match=r"layer\.0\.attention is no linear layer"):
        insertion.plan(texts, "adapter", SIZE, ("attention",))
    with pytest.raises(UsageError, match=r"puts out no feature map"):
        insertion.plan(convolutions, "adapter", SIZE, ("fc",))
    with pytest.raises(DataError, match=r"this one has no .encoder\.strange."):
        insertion.insert_(texts, Insert("adapter", 4, {"encoder.strange": (32, 3)}))
    put_(texts, "prompt")
    with pytest.raises(UsageError, match="has prompt modules already"):
        insertion.plan(texts, "prompt", SIZE)
