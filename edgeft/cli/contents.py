"""What `edgeft inspect` shows: the inside of an ONNX file, of a bundle, or of data that no recipe describes yet."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeft.cli.tables import number, size, table
from edgeft.core.errors import DataError, IntegrityError

if TYPE_CHECKING:
    import onnx

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_INTEGER = frozenset({"ConvInteger", "MatMulInteger", "MatMulNBits", "QLinearConv", "QLinearMatMul"})


def contents(thing: Path) -> dict[str, Any]:
    """Return what is inside `thing` as JSON values, with its "kind": model, bundle or data.

    Raises:
        DataError: there is nothing to look into.
        IntegrityError: a bundle's manifest or a model cannot be read.
        ModuleNotFoundError: the onnx package, for a model.
    """
    if not thing.exists():
        raise DataError(f"{thing}: no such file or folder", hint="edgeft inspect takes MODEL.onnx, a bundle, or data")
    if thing.suffix == ".onnx":
        return {"kind": "model", "path": str(thing), **_model(thing)}
    if (thing / "manifest.json").is_file():
        return {"kind": "bundle", "path": str(thing), **_bundle(thing)}
    if thing.suffix in {".yaml", ".yml"} or (thing / "recipe.yaml").is_file():
        raise DataError(f"{thing}: a recipe, not data, a model or a bundle", hint=f"edgeft plan {thing}")
    from edgeft.cli.survey import survey

    return {"kind": "data", "path": str(thing), **survey(thing).to_json()}


def contents_text(found: Mapping[str, Any]) -> str:
    """Return `contents`' result for a person."""
    return {"model": _model_text, "bundle": _bundle_text, "data": _data_text}[found["kind"]](found)


def _model(path: Path) -> dict[str, Any]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise IntegrityError(f"{path}: not an ONNX file ({error})") from error
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    return {
        "size_bytes": path.stat().st_size,
        "ir_version": model.ir_version,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        "inputs": [_value(value) for value in graph.input if value.name not in weights],
        "outputs": [_value(value) for value in graph.output],
        "ops": dict(Counter(node.op_type for node in graph.node).most_common()),
        "parameters": _parameters(graph),
        "external_data": sorted({t.name for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}),
        "quantized": _quantized(graph),
    }


def _value(value: "onnx.ValueInfoProto") -> dict[str, Any]:
    import onnx

    tensor = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value or "?" for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), "shape": shape}


def _parameters(graph: "onnx.GraphProto") -> dict[str, int]:
    import math

    import onnx

    counted: Counter[str] = Counter()
    for tensor in graph.initializer:
        counted[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += math.prod(tensor.dims)
    return dict(counted.most_common())


def _quantized(graph: "onnx.GraphProto") -> dict[str, Any]:
    """Count the weighted operators that run in integers: integer ops, or ops whose data and weight are dequantized."""
    dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    weighted = [node for node in graph.node if node.op_type in _WEIGHTED | _INTEGER]
    integer = [node for node in weighted if node.op_type in _INTEGER or set(node.input[:2]) <= dequantized]
    left = [node.name or node.output[0] for node in weighted if not any(node is other for other in integer)]
    share = len(integer) / len(weighted) if weighted else 0.0
    return {"weighted_ops": len(weighted), "integer_ops": len(integer), "share": share, "float_ops": left}


def _bundle(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{path}: not JSON ({error})", hint="the bundle is damaged: build it again") from error
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    return {"manifest": manifest, "files": sizes}


def _model_text(found: Mapping[str, Any]) -> str:
    values = [
        (role, value["name"], value["dtype"], " x ".join(map(str, value["shape"])))
        for role in ("input", "output")
        for value in found[f"{role}s"]
    ]
    quantized = found["quantized"]
    opsets = ", ".join(f"{domain} {version}" for domain, version in found["opsets"].items())
    parameters = ", ".join(f"{count:,} {dtype}" for dtype, count in found["parameters"].items())
    lines = [
        f"{found['path']}: {size(found['size_bytes'])}, opset {opsets}, by {found['producer'] or 'unknown'}",
        f"parameters: {parameters or 'none'}",
        f"integer: {quantized['integer_ops']} of {quantized['weighted_ops']} weighted operators",
    ]
    if quantized["integer_ops"] and quantized["float_ops"]:
        lines.append(f"in float: {', '.join(quantized['float_ops'])}")
    if found["external_data"]:
        lines.append(f"warning: {len(found['external_data'])} tensors lie outside this file")
    ops = table(("op", "count"), [(name, str(count)) for name, count in found["ops"].items()], right=("count",))
    return "\n\n".join(["\n".join(lines), table(("", "name", "dtype", "shape"), values), ops])


def _bundle_text(found: Mapping[str, Any]) -> str:
    manifest = found["manifest"]
    contract = ", ".join(f"{name} {value}" for name, value in manifest["input"].items() if value is not None)
    lines = [
        f"{manifest['name']}: {manifest['task']}, {manifest['precision']} for {manifest['target']}",
        f"classes: {', '.join(manifest['classes'])}"
        + (f" (ok: {manifest['ok_class']})" if manifest["ok_class"] else ""),
        f"input: {contract}",
        f"content digest: {manifest['content_digest']}",
    ]
    gates = [
        (
            gate["name"],
            gate["verdict"],
            f"{number(gate['value'])} {gate['unit']}",
            f"{number(gate['limit'])} {gate['unit']}",
        )
        for gate in manifest["gates"]
    ]
    files = [(name, size(count)) for name, count in found["files"].items()]
    parts = ["\n".join(lines), table(("gate", "verdict", "value", "limit"), gates) if gates else "no gates"]
    return "\n\n".join([*parts, table(("file", "size"), files, right=("size",))])


def _data_text(found: Mapping[str, Any]) -> str:
    lines = [f"{found['path']}: {found['structure']}, {found['n']} images"]
    if found["columns"]:
        lines.append(f"columns: {', '.join(found['columns'])} (paths: {found['input']}, label: {found['label']})")
    if found["score"]:
        lines.append(f"{found['label']} holds numbers from 0 to 1; a recipe says where the line is")
    counts = [(name, str(count)) for name, count in found["classes"].items()]
    splits = [(name, str(count)) for name, count in found["splits"].items()]
    tables = [table(("class", "images"), counts, right=("images",))] if counts else []
    tables += [table(("split", "images"), splits, right=("images",))] if splits else []
    return "\n\n".join(["\n".join(lines), *tables, f"next: edgeft init {found['path']}"])
