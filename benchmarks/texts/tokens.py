"""Rows of exactly LENGTH tokens from real reviews, to time text models at one length.

    python benchmarks/texts/tokens.py BUNDLE reviews.csv OUT.npz [--length 128] [--rows 16]
    edgeft compare FP32.onnx BUNDLE/model.onnx --input OUT.npz

BUNDLE names the tokenizer; reviews follow each other until a row is full. FP32.onnx is the float model that the bundle
came from: .edgeft/store/*/out/candidates/fp32/model.onnx beside the recipe.
"""

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeft.core import machine
from edgeft.pipeline.subject import open_subject
from edgeft.runtime.text import TextContract, TextEncoder, padded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rows", type=int, default=16)
    args = parser.parse_args()
    print(json.dumps({"machine": machine.facts()}))
    subject = open_subject(args.bundle)
    if not isinstance(subject.contract, TextContract) or subject.tokenizer is None:
        parser.error(f"{args.bundle} takes no texts")
    encoder = TextEncoder(replace(subject.contract, max_length=args.length), subject.tokenizer)
    with args.table.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    each = len(texts) // args.rows
    rows = [" ".join(texts[start : start + each]) for start in range(0, each * args.rows, each)]
    feeds = padded(encoder.tokens(rows), encoder.contract)
    if (
        not all((values.shape == (args.rows, args.length)) for values in feeds.values())
        or not feeds["attention_mask"].all()
    ):
        parser.error(f"{args.table}: too few words for {args.rows} rows of {args.length} tokens")
    np.savez(args.out, **feeds)  # type: ignore[arg-type] # arrays by name


if __name__ == "__main__":
    main()
