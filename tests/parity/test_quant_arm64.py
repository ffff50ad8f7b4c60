"""The same files on ARM64, emulated: qemu runs Debian's Python and PyPI's onnxruntime as a Neoverse N1 would.

Speed means nothing there. What is shown: which operators ARM's onnxruntime runs in integers, and how far its answers
are from x86's, whose sums are the same and whose rounding of them may be one step away.
"""

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from edgeft.quantize.calibration import Execution
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx import OnnxArm64Exporter, OnnxExporter

EMULATOR = shutil.which("qemu-aarch64")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        EMULATOR is None or shutil.which("apt-get") is None or platform.machine() != "x86_64",
        reason="needs x86, Debian and qemu-aarch64: apt-get install qemu-user",
    ),
]
PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libstdc++6", "libgcc-s1"),
    *("zlib1g", "libexpat1", "libssl3", "libbz2-1.0", "liblzma5", "libffi8", "libsqlite3-0", "libuuid1", "libcrypt1"),
)
WHEELS = (f"onnxruntime=={ort.__version__}", "numpy", "flatbuffers", "protobuf", "packaging")
CPUINFO = "".join(
    f"processor\t: {index}\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd atomics fphp asimdhp cpuid asimddp\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\n"
    for index in range(2)
)
ANSWER = """
import collections, json, sys
import numpy as np, onnxruntime as ort
feeds = dict(np.load(sys.argv[1]))
for index, file in enumerate(sys.argv[3:]):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = f"{sys.argv[2]}/{index}.onnx"
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    np.save(f"{sys.argv[2]}/{index}.npy", session.run(None, feeds)[0])
"""


def quiet(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        pytest.skip(f"{command[0]} {command[1]} failed, is there a network? {done.stderr[-300:]}")


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ARM64 root, from Debian's packages, and a site folder, from PyPI's wheels."""
    folder = tmp_path_factory.mktemp("arm64")
    for name in ("lists/partial", "cache/archives/partial", "debs", "root/proc", "site"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    settings = [
        *("APT::Architecture=arm64", "APT::Architectures=arm64", f"Dir::State::Lists={folder}/lists"),
        *(f"Dir::State::Status={folder}/status", f"Dir::Cache={folder}/cache", "APT::Sandbox::User=root"),
    ]
    own = [part for setting in settings for part in ("-o", setting)]
    quiet("apt-get", *own, "-qq", "update")
    quiet("apt-get", *own, "-qq", "download", *PACKAGES, cwd=folder / "debs")
    for deb in (folder / "debs").glob("*.deb"):
        quiet("dpkg", "-x", deb, folder / "root")
    (folder / "root/proc/cpuinfo").write_text(CPUINFO)  # onnxruntime reads it, and the host's is of another kind
    tags = [part for tag in ("2_28", "2_27", "2_17") for part in ("--platform", f"manylinux_{tag}_aarch64")]
    where = ["--platform", "manylinux2014_aarch64", *tags, "--python-version", "3.11"]
    wanted = ["--no-deps", "--only-binary", ":all:", "-d", str(folder / "wheels"), *WHEELS]
    quiet(sys.executable, "-m", "pip", "download", "-q", *where, *wanted)
    for wheel in (folder / "wheels").glob("*.whl"):
        zipfile.ZipFile(io.BytesIO(wheel.read_bytes())).extractall(folder / "site")
    return folder


def there(arm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a Neoverse N1, which has dot products of bytes."""
    command = [str(EMULATOR), "-cpu", "neoverse-n1", "-L", str(arm / "root"), str(arm / "root/usr/bin/python3.11")]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(arm / "site"), "PYTHONHOME": str(arm / "root/usr")}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environment)


def test_files_run_in_integers_and_answer_as_here(arm: Path, residual: onnx.ModelProto, tmp_path: Path) -> None:
    assert json.loads(there(arm, "-c", "import platform; print(f'\"{platform.machine()}\"')").stdout) == "aarch64"
    x = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", pixels=x)
    files = []
    for exporter in (OnnxExporter(), OnnxArm64Exporter()):
        made = quantize_static(residual, exporter.placement, x, static_method("gptq", 16, 0.0), execution=Execution(1))
        onnx.save(made.model, tmp_path / f"{exporter.name}.given.onnx")
        files.append(str(tmp_path / f"{exporter.name}.given.onnx"))
    done = there(arm, "-c", ANSWER, str(tmp_path / "x.npz"), str(tmp_path), *files)
    assert done.returncode == 0, done.stderr[-2000:]
    for index, file in enumerate(files):
        here = OnnxExporter().session(Path(file), 1)({"pixels": x})[0]
        found = np.load(tmp_path / f"{index}.npy")
        assert np.abs(found - here).max() < 0.02
        assert (found.argmax(1) == here.argmax(1)).all()
        ran = Counter(node.op_type for node in onnx.load(tmp_path / f"{index}.onnx").graph.node)
        given = Counter(node.op_type for node in onnx.load(file).graph.node)
        floats = sum(ran[name] for name in ("Conv", "FusedConv", "Add"))
        assert ran["QLinearConv"] >= given["Conv"] - 1  # ARM64: the first one reads float pixels... or none
        assert floats <= 1


def test_gates_run_in_integers(arm: Path, tmp_path: Path) -> None:
    gate = parser.parse_model("""<ir_version: 9, opset_import: ["" : 20]>
        g (float[N,8,6,6] x) => (float[N,8,6,6] y) {
            a = Conv(x, w) g = HardSwish(a) b = Conv(g, w)
            c = HardSigmoid<alpha=0.2, beta=0.5>(b) d = Conv(c, w) y = Neg(d)
        }""")
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (8, 8, 1, 1)).astype(np.float32)
    gate.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    x = rng.normal(0, 2, (32, 8, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    files = []
    for exporter in (OnnxExporter(), OnnxArm64Exporter()):
        made = quantize_static(gate, exporter.placement, x, static_method("minmax", 8), execution=Execution(1))
        onnx.save(made.model, tmp_path / f"{exporter.name}.given.onnx")
        files.append(str(tmp_path / f"{exporter.name}.given.onnx"))
    done = there(arm, "-c", ANSWER, str(tmp_path / "x.npz"), str(tmp_path), *files)
    assert done.returncode == 0, done.stderr[-2000:]
    true = ort.InferenceSession(gate.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    for index in range(len(files)):
        assert np.square(np.load(tmp_path / f"{index}.npy") - true).mean() < 2e-3 * np.square(true).mean()
        ran = Counter(node.op_type for node in onnx.load(tmp_path / f"{index}.onnx").graph.node)
        assert (ran["QLinearConv"], ran["QLinearAdd"], ran["QLinearMul"]) == (3, 2, 1)
        assert not ran.keys() & {"HardSigmoid", "HardSwish", "Add", "Mul"}
