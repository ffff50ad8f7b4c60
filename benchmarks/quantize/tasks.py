"""Write what every quantizer of peers.py reads: a trained float graph, calibration images, labelled evaluation images.

    python tasks.py solar SPLIT_FOLDER OUT     from a build that benchmarks/solar_cells/accuracy.py left in work/
    python tasks.py fashion NET OUT            trains NET on Fashion-MNIST (Debian package dataset-fashion-mnist)

OUT gets float.onnx (uint8 pixels to logits, as edgeft exports it), plain.onnx (the same with the normalisation as Cast,
Sub and Mul, which every tool reads), calibration.npy uint8 [256, H, W, 3], and pixels and labels: validation.npz, by
which a tool may choose, and evaluation.npz, of the test split. NET is one of resnet18, mobilenetv2_100,
mobilenetv3_small_100, efficientnet_b0.
"""

import argparse
import gzip
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from calibration_arms import plain_normalisation_
from onnx.utils import Extractor
from torch.nn import functional

from edgeft.data.dataset import Dataset
from edgeft.finetune.environment import training_process
from edgeft.finetune.kernels import FastKernels
from edgeft.graph.export import build
from edgeft.quantize.stage import calibration_rows
from edgeft.runtime.preprocess import InputContract

CALIBRATION, VALIDATION, SEED, CLASSES = 256, 5000, 0, 10
MEAN, STD = 127.0, 128.0
NETS = {
    "resnet18": (32, 1500),
    "mobilenetv2_100": (48, 2000),
    "mobilenetv3_small_100": (48, 3000),
    "efficientnet_b0": (48, 2200),
}
"""Side in pixels, steps of 128 images: at most 20 minutes on two cores."""
DATASET = Path("/usr/share/datasets/fashion-mnist")
BATCH, RATE = 128, 3e-3


Labelled = tuple[np.ndarray, np.ndarray]


def write(
    out: Path, graph: onnx.ModelProto, calibration: np.ndarray, validation: Labelled, evaluation: Labelled
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    logits = Extractor(onnx.shape_inference.infer_shapes(graph)).extract_model(["pixels"], ["logits"])
    onnx.save(logits, out / "float.onnx")
    plain_normalisation_(logits.graph)
    onnx.checker.check_model(logits, full_check=True)
    onnx.save(logits, out / "plain.onnx")
    np.save(out / "calibration.npy", calibration)
    for name, (pixels, labels) in {"validation": validation, "evaluation": evaluation}.items():
        np.savez(out / f"{name}.npz", pixels=np.ascontiguousarray(pixels), labels=labels.astype(np.int64))


def solar(split: Path, out: Path) -> None:
    keys = {stage["name"]: stage["key"] for stage in json.loads((split / "report.json").read_text())["stages"]}
    folders = {name: split.parent / "cache" / "store" / key / "out" for name, key in keys.items()}
    data = Dataset.open(folders["data"])
    graph = onnx.load(folders["export"] / "model.onnx")
    val, test = ((data.pixels[rows], data.labels[rows]) for rows in (data.indices("val"), data.indices("test")))
    write(out, graph, calibration_rows(data, CALIBRATION, SEED)[:]["pixels"], val, test)


def read(name: str, folder: Path, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels uint8 [N, 3, side, side] and labels int64 [N]."""
    images = np.frombuffer(gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{name}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    grey = torch.from_numpy(images.reshape(-1, 1, 28, 28).copy())
    large = torch.cat(
        [
            functional.interpolate(part.float(), (side, side), mode="bicubic").round().clamp(0, 255).to(torch.uint8)
            for part in grey.split(2000)
        ]
    )
    return large.expand(-1, 3, -1, -1), torch.from_numpy(labels.astype(np.int64))


def augmented(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip half of the images and shift all of them by up to 3 pixels."""
    flipped = torch.where(torch.rand(len(pixels), 1, 1, 1, generator=generator) < 0.5, pixels.flip(3), pixels)
    side = pixels.shape[-1]
    padded = functional.pad(flipped, (3, 3, 3, 3))
    dx, dy = torch.randint(0, 7, (2,), generator=generator).tolist()
    return padded[:, :, dy : dy + side, dx : dx + side]


def fashion(name: str, dataset: Path, out: Path) -> None:
    side, steps = NETS[name]
    generator = torch.Generator().manual_seed(SEED)
    pixels, labels = read("train", dataset, side)
    held_out = (nhwc(pixels[-VALIDATION:]), labels[-VALIDATION:].numpy())
    pixels, labels = pixels[:-VALIDATION], labels[:-VALIDATION]
    net = timm.create_model(name, num_classes=CLASSES).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    epochs = math.ceil(steps * BATCH / len(pixels))
    order = torch.cat([torch.randperm(len(pixels), generator=generator) for _ in range(epochs)])
    started, total = time.perf_counter(), 0.0
    for step, rows in enumerate(order[: steps * BATCH].view(steps, BATCH), start=1):
        x = (augmented(pixels[rows].float(), generator) - MEAN) / STD
        loss = functional.cross_entropy(net(x.contiguous(memory_format=torch.channels_last)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 200 == 0 or step == steps:
            seconds = time.perf_counter() - started
            print(f"{name}: step {step} of {steps}, mean loss {total / 200:.3f}, {seconds:.0f} s", flush=True)
            total = 0.0
    contract = InputContract(side, side, "squash", None, "bicubic", (MEAN,) * 3, (STD,) * 3)
    graph = build(net.eval(), contract, 20)[0]
    drawn = torch.randperm(len(pixels), generator=generator)[:CALIBRATION]
    test, test_labels = read("t10k", dataset, side)
    write(out, graph, nhwc(pixels[drawn]), held_out, (nhwc(test), test_labels.numpy()))


def nhwc(pixels: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("solar", "fashion"))
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("--dataset", type=Path, default=DATASET, help="folder of the four idx files")
    args = parser.parse_args()
    if args.task == "solar":
        solar(Path(args.source), args.out)
    else:
        with training_process(SEED, os.cpu_count() or 1), FastKernels():
            fashion(args.source, args.dataset, args.out)


if __name__ == "__main__":
    main()
