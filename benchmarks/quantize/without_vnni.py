"""Do int8 files answer on a CPU without VNNI what they answer here? Every onnxruntime file that peers.py left in OUT.

    python benchmarks/quantize/without_vnni.py OUT TASK... [--images 32]      needs qemu-x86_64 (Debian: qemu-user)

Each file answers the first evaluation images of its task here and as a Haswell: AVX2 without VNNI, emulated by qemu
instruction by instruction, so that onnxruntime takes the kernels that it takes on such a CPU. Times mean nothing there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from edgeft.runtime.saturation import saturates

FILES = {
    "fp32": "{task}/float.onnx",
    "edgeft": "{out}/int8/{name}/edgeft/ladder/int8.onnx",
    "onnxruntime, reduce_range": "{out}/int8/{name}/onnxruntime/minmax/int8.onnx",
    "NNCF": "{out}/int8/{name}/nncf/onnx/int8.onnx",
    "Olive, reduce_range asked for": "{out}/int8/{name}/olive/minmax/int8.onnx",
}
ANSWER = """
import sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
np.save(sys.argv[3], np.concatenate([session.run(None, {name: row[None]})[0] for row in np.load(sys.argv[2])]))
"""


def answers(file: Path, pixels: Path, *, emulated: bool) -> np.ndarray:
    """Return the logits of `file`, float32 [N, K]."""
    python = [str(Path(sys.executable).resolve())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npy"
        command = [*(["qemu-x86_64", "-cpu", "Haswell"] if emulated else []), *python, "-c", ANSWER]
        subprocess.run([*command, str(file), str(pixels), str(out)], check=True, capture_output=True, env=environment)
        return np.asarray(np.load(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=32)
    given = parser.parse_args()
    if saturates():
        sys.exit("this CPU has no VNNI itself: there is nothing to compare with")
    print("| task | file | decisions changed | largest change of a logit |\n|---|---|---|---|")
    for task in given.tasks:
        with tempfile.TemporaryDirectory() as folder:
            pixels = Path(folder) / "pixels.npy"
            np.save(pixels, np.load(task / "evaluation.npz")["pixels"][: given.images])
            for name, pattern in FILES.items():
                file = Path(pattern.format(task=task, out=given.out, name=task.name))
                here, there = (answers(file, pixels, emulated=emulated) for emulated in (False, True))
                changed = int((here.argmax(1) != there.argmax(1)).sum())
                largest = float(np.abs(here - there).max())
                print(f"| {task.name} | {name} | {changed} of {len(here)} | {largest:.3g} |", flush=True)


if __name__ == "__main__":
    main()
