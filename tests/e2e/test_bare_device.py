"""A device has the base install only: no training library may be needed, or even present, to verify and predict."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ABSENT = ("torch", "torchvision", "timm", "transformers", "onnx", "onnx_ir", "onnxscript", "scipy", "sklearn", "pandas")

BLOCKER = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(ABSENT)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (a device has none)", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def blocked(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER)
    paths = [str(tmp_path / "site"), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run(
    python: str | Path, *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-W", "error::DeprecationWarning:edgeft", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env, cwd="/")


def test_the_blocker_blocks(blocked: dict[str, str]) -> None:
    done = run(sys.executable, "-c", "import onnx", env=blocked)
    assert done.returncode != 0
    assert "a device has none" in done.stderr


def test_load_and_predict_without_training_libraries(
    blocked: dict[str, str], tiny_bundle: Path, tiny_images: Path
) -> None:
    code = (
        "import json, sys; from pathlib import Path; from edgeft.runtime import load\n"
        "found = load(Path(sys.argv[1])).predict([Path(path) for path in sys.argv[2:]])\n"
        "loaded = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "print(json.dumps({'labels': [one.label for one in found], 'loaded': loaded}))"
    )
    images = [tiny_images / name / "0.png" for name in ("blue", "red")]
    done = run(sys.executable, "-c", code, tiny_bundle, *images, env=blocked)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["labels"] == ["blue", "red"]
    assert not set(answer["loaded"]) & {*ABSENT, "pydantic", "yaml", "typer"}  # nor what only the command line needs


def commands(bundle: Path, images: Path) -> list[tuple[str | Path, ...]]:
    return [("verify", bundle, "--json"), ("predict", bundle, images / "green" / "0.png", "--json")]


def check_verbs(python: Path, bundle: Path, images: Path, env: dict[str, str] | None = None) -> None:
    verified, predicted = (run(python, "-m", "edgeft", *arguments, env=env) for arguments in commands(bundle, images))
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["raw_inputs_equal"] is True
    assert predicted.returncode == 0, predicted.stderr
    assert json.loads(predicted.stdout)["predictions"][0]["label"] == "green"
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:-1])
    damaged = run(python, "-m", "edgeft", "verify", bundle, "--json", env=env)
    assert damaged.returncode == 8, damaged.stdout
    assert "model.onnx" in damaged.stdout + damaged.stderr


def test_the_verbs_without_training_libraries(blocked: dict[str, str], tiny_bundle: Path, tiny_images: Path) -> None:
    check_verbs(Path(sys.executable), tiny_bundle, tiny_images, env=blocked)


def test_the_oldest_promised_onnxruntime_answers_the_same(
    blocked: dict[str, str], oldest: Path, tiny_bundle: Path, tiny_images: Path
) -> None:
    env = {**blocked, "PYTHONPATH": os.pathsep.join([str(oldest), blocked["PYTHONPATH"]])}
    told = run(sys.executable, "-c", "import onnxruntime; print(onnxruntime.__file__)", env=env)
    assert Path(told.stdout).is_relative_to(oldest), told.stderr
    check_verbs(Path(sys.executable), tiny_bundle, tiny_images, env=env)


@pytest.mark.slow
def test_the_verbs_in_a_bare_virtual_environment(tmp_path: Path, tiny_bundle: Path, tiny_images: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(REPOSITORY)]
    installed = subprocess.run(install, capture_output=True, text=True, check=False, timeout=900, env=env)
    assert installed.returncode == 0, installed.stderr
    for name in ABSENT:
        assert run(python, "-c", f"import {name}", env=env).returncode != 0, f"{name} came with the base install"
    check_verbs(python, tiny_bundle, tiny_images, env=env)
