"""The promise that pair-safe weights are for, kept on a CPU without VNNI: emulated for onnxruntime, asked of oneDNN.

qemu runs this very Python and onnxruntime as a Haswell, AVX2 without VNNI, whose kernels add pairs in saturating int16.
OpenVINO's kernels can be told to use no more than AVX2.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeft.quantize.calibration import Execution
from edgeft.quantize.static import quantize_static, static_method
from edgeft.runtime.saturation import saturates
from edgeft.runtime.session import session_options
from edgeft_exporters.onnx.placement import PLACEMENT as ONNXRUNTIME
from edgeft_exporters.openvino.placement import PLACEMENT as OPENVINO

HERE = Path(__file__).parent
EMULATOR = shutil.which("qemu-x86_64")
emulated = pytest.mark.skipif(
    EMULATOR is None or platform.machine() != "x86_64", reason="needs x86 and qemu-x86_64: apt-get install qemu-user"
)
exact_here = pytest.mark.skipif(saturates(), reason="this CPU saturates itself: nothing to compare with")
ANSWER = """
import sys
import numpy as np
from {module} import {exporter}
feeds = dict(np.load(sys.argv[1]))
for file, out in zip(sys.argv[2::2], sys.argv[3::2]):
    np.save(out, {exporter}().session(__import__("pathlib").Path(file), 1)(feeds)[0])
"""


def without_vnni(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python as a Haswell would."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [str(EMULATOR), "-cpu", "Haswell", str(Path(sys.executable).resolve()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=HERE)


def full_range(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with weights that no rule binds: every one doubled, as far as int8 goes."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name.endswith("::weight::q"):
            array = np.clip(numpy_helper.to_array(tensor).astype(np.int32) * 2, -127, 127).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return changed


def answers(folder: Path, files: list[Path], module: str, exporter: str, x: np.ndarray) -> tuple[list[str], list[Path]]:
    """Return the arguments that make a process answer `x` with each file, and where its answers go."""
    np.savez(folder / "x.npz", pixels=x)
    outs = [file.with_suffix(".there.npy") for file in files]
    code = ANSWER.format(module=module, exporter=exporter)
    pairs = [str(path) for pair in zip(files, outs, strict=True) for path in pair]
    return ["-c", code, str(folder / "x.npz"), *pairs], outs


def written(folder: Path, model: onnx.ModelProto) -> list[Path]:
    files = [folder / "safe.onnx", folder / "full.onnx"]
    for file, each in zip(files, (model, full_range(model)), strict=True):
        onnx.save(each, file)
    return files


@emulated
def test_the_emulated_cpu_saturates() -> None:
    done = without_vnni("-c", "from edgeft.runtime.saturation import saturates; print(saturates())")
    assert done.stdout.strip() == "True", done.stderr


@emulated
def test_every_operator_equals_the_exact_reference_there() -> None:
    tests = HERE / "test_quant_integer_reference.py"
    done = without_vnni("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={HERE.parent.parent}", str(tests))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


@emulated
@exact_here
def test_a_net_answers_there_as_here_and_full_range_weights_do_not(residual: onnx.ModelProto, tmp_path: Path) -> None:
    import onnxruntime as ort

    x = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)
    made = quantize_static(residual, ONNXRUNTIME, x, static_method("gptq", 16, 0.0), execution=Execution(1))
    files = written(tmp_path, made.model)
    arguments, outs = answers(tmp_path, files, "edgeft_exporters.onnx", "OnnxExporter", x)
    done = without_vnni(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    here = [
        ort.InferenceSession(file, session_options(1, spinning=False)).run(None, {"pixels": x})[0] for file in files
    ]
    np.testing.assert_array_equal(np.load(outs[0]), here[0])
    assert np.abs(np.log(np.load(outs[1])) - np.log(here[1])).max() > 0.1


@exact_here
def test_openvino_answers_there_as_here_and_full_range_weights_do_not(
    residual: onnx.ModelProto, tmp_path: Path
) -> None:
    from edgeft_exporters.openvino import OpenVinoExporter

    x = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)
    made = quantize_static(residual, OPENVINO, x, static_method("gptq", 16, 0.0), execution=Execution(1))
    files = written(tmp_path, made.model)
    arguments, outs = answers(tmp_path, files, "edgeft_exporters.openvino", "OpenVinoExporter", x)
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    here = [OpenVinoExporter().session(file, 1)({"pixels": x})[0] for file in files]
    np.testing.assert_allclose(np.load(outs[0]), here[0], rtol=1e-4)  # floats between the integers: single roundings
    assert np.abs(np.log(np.load(outs[1])) - np.log(here[1])).max() > 0.1
