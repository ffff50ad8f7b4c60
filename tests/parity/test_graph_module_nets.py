"""Whole networks in the torch executor: outputs against onnxruntime, gradients against torch's own module.

Weights are random; norms, biases and layer scales are drawn anew too, so that no branch of a net is silent.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from edgeft.graph.execute import open_session
from edgeft.graph.module import GraphModule
from edgeft.graph.simplify import simplify_
from edgeft.graph.trace import trace

SIDE, CLASSES, OPSET = 64, 10, 18
WORDS, LONGEST = 100, 16
QUICK = ("torchvision/mobilenet_v3_small", "bert")
SLOW = (
    *(f"torchvision/{name}" for name in ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large")),
    *(f"timm/{name}" for name in ("tf_efficientnet_lite0", "efficientnet_b0", "convnext_atto", "repvgg_a0")),
    *(f"timm/{name}" for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "mobilenetv3_small_100")),
    "minilm",
)
NETS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
ENCODERS = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    # the shape of all-MiniLM-L6-v2
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
}


class Encoder(nn.Module):
    """A BERT classifier with two positional inputs and one output, as graphs have them."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        config = BertConfig(vocab_size=WORDS, max_position_embeddings=LONGEST, num_labels=CLASSES, **sizes)
        self.net = BertForSequenceClassification(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.net(input_ids=input_ids, attention_mask=attention_mask, return_dict=False)[0]


def build(name: str) -> nn.Module:
    """Return the net in eval mode, every one-dimensional tensor of its weights drawn at random."""
    torch.manual_seed(0)
    library, _, architecture = name.rpartition("/")
    if library == "torchvision":
        net = torchvision.models.get_model(architecture, num_classes=CLASSES)
    elif library == "timm":
        sizes = {"img_size": SIDE} if "patch16" in architecture else {}
        net = timm.create_model(architecture, num_classes=CLASSES, **sizes)
    else:
        net = Encoder(ENCODERS[name])
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and tensor.dim() <= 1:
                tensor.add_(torch.randn_like(tensor) * 0.1)
    return net.eval()


def export(net: nn.Module) -> ir.Model:
    if not isinstance(net, Encoder):
        return trace(net, SIDE, SIDE, OPSET)
    length, example = torch.export.Dim("L"), torch.ones(2, 8, dtype=torch.int64)
    mask = example.clone()
    mask[1, 5:] = 0  # transformers leaves out a mask that hides nothing
    axes = {0: torch.export.Dim("N"), 1: length}
    program = torch.onnx.export(
        *(net, (example, mask)),
        dynamo=True,
        opset_version=OPSET,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes=(axes, axes),
        optimize=False,
        verbose=False,
    )
    assert program is not None
    return program.model


def feeds_of(net: nn.Module) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    if not isinstance(net, Encoder):
        return {"x": torch.from_numpy(rng.normal(size=(3, 3, SIDE, SIDE)).astype(np.float32))}
    lengths = torch.tensor([[12], [7], [3]])
    mask = (torch.arange(12)[None] < lengths).to(torch.int64)
    # not word 0: torch's embedding holds back the gradient of its padding word, and no graph says so
    return {"input_ids": torch.from_numpy(rng.integers(1, WORDS, (3, 12))), "attention_mask": mask}


def run_onnxruntime(model: ir.Model, feeds: dict[str, Tensor]) -> Any:  # noqa: ANN401 - onnxruntime is untyped
    session = open_session(ir.to_proto(model), 1)
    return session.run(["logits"], {name: tensor.numpy() for name, tensor in feeds.items()})[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", NETS)
def test_outputs_equal_onnxruntime_before_and_after_simplification(name: str) -> None:
    net = build(name)
    model, feeds = export(net), feeds_of(net)
    expected = run_onnxruntime(model, feeds)
    spread = float(np.abs(expected).max())
    assert expected.std() > 0.01 * spread  # else a constant would pass
    for _ in ("as exported", "simplified"):
        with torch.no_grad():
            found = GraphModule(model, trainable=[])(feeds)["logits"].numpy()
        # float32 sums in another order: measured at most 1.6e-6 of the largest logit
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * spread)
        simplify_(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", QUICK)
def test_gradients_equal_those_of_the_module_that_was_exported(name: str) -> None:
    net = build(name)
    model, feeds = export(net), feeds_of(net)
    expected = dict(net.named_parameters())
    names = [key for key in expected if key in model.graph.initializers]
    assert len(names) >= 0.8 * len(expected)  # the rest is transposed or merged on export
    graph = GraphModule(model, trainable=names)
    target = torch.arange(3)
    nn.functional.cross_entropy(net(*feeds.values()), target).backward()
    nn.functional.cross_entropy(graph(feeds)["logits"], target).backward()
    for key in names:
        wanted, found = expected[key].grad, graph.tensor(key).grad
        assert wanted is not None, key
        assert found is not None, key
        # float32 sums over thousands of products in another order
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-9, msg=key)
