"""Calibration statistics on disk, by content: what an interrupted pass goes on from and what another method reuses.

    <folder>/<key>.calibration        sha256 of the rest, then an .npz

The key is the digest of everything that the statistics depend on: the graph with its weights, the images, what is
asked for, how onnxruntime runs and its version. What is done with them (`compress.method`) is no part of it, so the
files lie in the cache's memo folder, which all keys of the cache share, and not in a stage's workspace, which belongs
to one key and is removed when the stage succeeds. One file is both: statistics of the first n images, and a checkpoint
while n is less than all. A file that is missing or whose digest differs counts as absent.
"""

import io
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeft.core.atomic import write_atomic
from edgeft.core.digest import sha256_bytes, sha256_json
from edgeft.core.keys import versions
from edgeft.quantize.collected import CalibrationRequest, CalibrationStatistics
from edgeft.quantize.observers import Histogram
from edgeft.quantize.one_input import Calibration

_VERSION = 3
"""Raised when equal inputs give other statistics."""
_DIGEST_BYTES = 64
_ROWS_AT_ONCE = 64


def calibration_key(
    model: ir.Model, pixels: Calibration, request: CalibrationRequest, *, threads: int, batch: int
) -> str:
    """Return the digest of everything that the statistics depend on.

    Args:
        model: the float graph.
        pixels: all calibration images, [N, ...].
        request: what is collected.
        threads: of onnxruntime.
        batch: images at a time; both may change the last bits of float sums.
    """
    observed = [
        [tensor, None if found is None else [found.axis, sha256_bytes(found.weights.tobytes())]]
        for tensor, found in request.observed.items()
    ]
    parts = {
        "version": _VERSION,
        "needs": dict(versions(("numpy", "onnxruntime"))),
        "graph": sha256_bytes(ir.to_proto(model).SerializeToString(deterministic=True)),
        "pixels": _digest(pixels),
        "observed": observed,
        "means": [[tensor, axis] for tensor, axis in request.means.items()],
        "mean_images": request.mean_images,
        "execution": [threads, batch],
    }
    return sha256_json(parts)


def save_statistics(path: Path, statistics: CalibrationStatistics) -> None:
    """Write `statistics` to `path` whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    histograms = list(statistics.histograms.values())
    head = {
        "images": statistics.images,
        "mean_images": statistics.mean_images,
        "histograms": [[h.name, h.exponent, h.zeros, h.low, h.high] for h in histograms],
        "means": [[tensor, len(total)] for tensor, total in statistics.mean_sums.items()],
    }
    payload = io.BytesIO()
    np.savez_compressed(
        payload,
        head=np.frombuffer(json.dumps(head).encode(), np.uint8),
        counts=np.array([h.counts for h in histograms], np.int64),
        weighted=np.array([h.weighted for h in histograms], np.int64),
        mean_sums=np.concatenate([np.zeros(0), *statistics.mean_sums.values()]),
    )
    write_atomic(path, sha256_bytes(payload.getvalue()).encode() + payload.getvalue())


def load_statistics(path: Path) -> CalibrationStatistics | None:
    """Return what `save_statistics` wrote to `path`; None where there is no such file or it is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if sha256_bytes(payload).encode() != digest:
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        head = json.loads(arrays["head"].tobytes())
        rows = zip(head["histograms"], arrays["counts"], arrays["weighted"], strict=True)
        histograms = {
            name: Histogram(name, counts.copy(), exponent, zeros, low, high, weighted.copy())
            for (name, exponent, zeros, low, high), counts, weighted in rows
        }
        ends = np.cumsum([channels for _, channels in head["means"]], dtype=np.int64)
        parts = np.split(arrays["mean_sums"], ends)  # the last one is empty
    sums = {tensor: part for (tensor, _), part in zip(head["means"], parts, strict=False)}
    return CalibrationStatistics(histograms, sums, head["images"], head["mean_images"])


def _digest(pixels: Calibration) -> str:
    """Return the digest of shape, type and bytes, read a few images at a time."""
    digest = sha256(f"{pixels.dtype} {pixels.shape}".encode())
    for start in range(0, len(pixels), _ROWS_AT_ONCE):
        digest.update(np.ascontiguousarray(pixels[start : start + _ROWS_AT_ONCE]).data)
    return digest.hexdigest()
