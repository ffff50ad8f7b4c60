"""What the command line must not load, counted in modules: no clock, so no flakes."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
HEAVY = frozenset(
    {
        *("numpy", "torch", "torchvision", "timm", "transformers", "onnx", "onnx_ir", "onnxscript", "onnxruntime"),
        *("pydantic", "yaml", "rich", "PIL", "scipy", "sklearn", "pyarrow"),
        *("starlette", "uvicorn", "prometheus_client"),
    }
)
MODULE_BUDGET = 250
"""`edgeft --help` loads about 160 modules; CPU time follows their number."""
VERB_MODULES = (
    "main",
    "group",
    "failure",
    "options",
    "terminal",
    "build",
    "ci",
    "device",
    "devices",
    "gate",
    "project",
    "quantize",
    "serve",
)


def _loaded_by(code: str) -> set[str]:
    report = (
        "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def _roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_help_loads_nothing_heavy_and_few_modules() -> None:
    loaded = _loaded_by("import sys; sys.argv = ['edgeft', '--help']\nfrom edgeft.cli.main import main\nmain()")
    assert _roots(loaded) & HEAVY == set()
    assert len(loaded) < MODULE_BUDGET


@pytest.mark.parametrize(
    "module",
    ["edgeft", "edgeft.core.metrics", "edgeft.core.store", "edgeft.core.stage", "edgeft.catalog", "edgeft.config"],
)
def test_the_light_rooms_load_nothing_heavy(module: str) -> None:
    allowed = {"pydantic"} if module == "edgeft.config" else set()
    assert _roots(_loaded_by(f"import {module}")) & HEAVY <= allowed


@pytest.mark.parametrize(
    "block", ["data.config", "models.config", "finetune.config", "graph.config", "quantize.config"]
)
def test_the_configs_that_a_recipe_is_checked_with_load_pydantic_only(block: str) -> None:
    assert _roots(_loaded_by(f"import edgeft.{block}")) & HEAVY <= {"pydantic"}


@pytest.mark.parametrize("name", VERB_MODULES)
def test_modules_of_verbs_import_stdlib_and_typer_at_the_top(name: str) -> None:
    path = REPOSITORY / "edgeft" / "cli" / f"{name}.py"
    allowed = {*sys.stdlib_module_names, "typer"}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom) and node.module not in {"edgeft", "edgeft.core.metrics"}:  # names alone
            assert node.module
            assert node.module.partition(".")[0] in allowed or node.module.startswith("edgeft.cli."), node.module


def test_the_device_rooms_load_no_training_library() -> None:
    loaded = _loaded_by("import edgeft.runtime, edgeft.bundle.check, edgeft.verify")
    assert (
        _roots(loaded) & {"torch", "torchvision", "timm", "transformers", "onnx", "onnx_ir", "scipy", "sklearn"}
        == set()
    )
