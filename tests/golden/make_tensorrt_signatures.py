"""Write tests/golden/tensorrt_signatures.json from NVIDIA's wheel of TensorRT's Python bindings.

python tests/golden/make_tensorrt_signatures.py

The wheel is on PyPI, TensorRT's libraries are not: the bindings are imported against empty libraries that a C compiler
makes, which is enough to read the signatures that they declare. No object of theirs can be made. Kept are the members
that the exporter names.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

EXPORTER = Path(__file__).parents[2] / "exporters/edgeft_exporters/tensorrt"
TARGET = Path(__file__).with_name("tensorrt_signatures.json")
WHEEL = "tensorrt-cu13-bindings==11.4.0.106"
LIBRARIES = {
    "libnvinfer.so.11": (
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
        *("getBuilderPluginRegistry", "getPluginRegistry"),
    ),
    "libnvinfer_plugin.so.11": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.11": (
        *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getNvOnnxParserVersion"),
    ),
}
CLASSES = (
    *(
        "Builder",
        "INetworkDefinition",
        "ITensor",
        "OnnxParser",
        "ParserError",
        "IBuilderConfig",
        "IOptimizationProfile",
    ),
    *("ITimingCache", "IHostMemory", "Runtime", "ICudaEngine", "IExecutionContext", "ILogger", "Dims"),
)
ENUMS = ("NetworkDefinitionCreationFlag", "MemoryPoolType", "BuilderFlag", "DeviceType", "TensorIOMode")
READ = """
import json, sys, tensorrt_bindings as trt
classes, enums = json.loads(sys.argv[1])
def members(owner):
    names = [name for name in dir(owner) if not name.startswith("_") or name == "__init__"]
    return {name: "property" if type(getattr(owner, name)) is property else getattr(owner, name).__doc__ or ""
            for name in names if not isinstance(getattr(owner, name), type)}
print(json.dumps({
    "version": trt.__version__,
    "classes": {name: members(getattr(trt, name)) for name in classes},
    "enums": {name: sorted(getattr(trt, name).__members__) for name in enums}
    | {"ILogger.Severity": sorted(trt.ILogger.Severity.__members__), "DataType": sorted(trt.DataType.__members__)},
    "functions": ["nptype"] if callable(trt.nptype) else [],
}))
"""
_SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((?P<arguments>.*)\) -> (?P<returns>[\w.:\[\], |]+)$", re.MULTILINE)


def signatures(text: str) -> list[dict[str, object]]:
    """Return each overload: parameters after self, how many are required, what it returns."""
    found = []
    for match in _SIGNATURE.finditer(text):
        parameters = re.findall(r"(?:^|, )(\w+): [^=]*?(= |(?=, \w+: )|$)", match["arguments"])
        names = [name for name, _ in parameters if name != "self"]
        required = sum(1 for name, default in parameters if name != "self" and not default)
        returns = re.split(r"[.:]+", match["returns"])[-1]
        found.append({"parameters": names, "required": required, "returns": returns})
    return found


def read() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, WHEEL], check=True
        )
        for library, functions in LIBRARIES.items():
            source = folder / "empty.c"
            source.write_text("".join(f"void *{function}(void) {{ return 0; }}\n" for function in functions))
            subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / library, source], check=True)
        done = subprocess.run(
            [sys.executable, "-c", READ, json.dumps([CLASSES, ENUMS])],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)},
        )
    found: dict[str, object] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    table = read()
    classes = table["classes"]
    assert isinstance(classes, dict)
    sources = (EXPORTER / name for name in ("engine.py", "session.py"))
    used = {"__init__", *re.findall(r"\.(\w+)", "".join(path.read_text() for path in sources))}
    for owner, members in classes.items():
        classes[owner] = {
            member: text if text == "property" else signatures(text)
            for member, text in members.items()
            if member in used
        }
    TARGET.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
