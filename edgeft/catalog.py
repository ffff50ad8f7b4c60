"""Every built-in method on one page, as "module:name" strings; third parties join by entry point.

A distribution adds methods under the entry-point group `edgeft.methods` (each entry names a `Method` or a tuple of
them) and exporters under `edgeft.exporters` (each names a class, see `edgeft.core.exporter`). Every exporter is also
a `lower` method of its name. What cannot be imported is not hidden: `broken` lists it with its reason.
"""

import difflib
import importlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from edgeft.core.errors import DeviceError, UsageError
from edgeft.core.exporter import Exporter
from edgeft.core.stage import Method

_TRAINING = (
    *("accelerate", "numpy", "onnxruntime", "pillow", "safetensors"),
    *("timm", "torch", "torchvision", "transformers"),
)
_DISTILLING = (*_TRAINING, "scipy", "torch-pruning")
_ADAPTING = (*_TRAINING, "peft")
_GRAPH = ("numpy", "onnx", "onnx-ir", "onnxruntime")
_RUNTIME = ("numpy", "onnxruntime")

METHODS: tuple[Method, ...] = (
    Method("data", "images", "edgeft.data.config:DataConfig", "edgeft.data.stage:run", 3, ("numpy", "pillow", "scipy")),
    Method(
        "data",
        "text",
        "edgeft.data.text.config:TextDataConfig",
        "edgeft.data.text.stage:run",
        1,
        ("numpy", "scipy", "tokenizers"),
    ),
    Method("finetune", "full", "edgeft.finetune.config:FullConfig", "edgeft.finetune.full:run", 4, _TRAINING),
    Method("finetune", "frozen", "edgeft.finetune.config:FrozenConfig", "edgeft.finetune.frozen:run", 6, _ADAPTING),
    Method("finetune", "gradual", "edgeft.finetune.config:GradualConfig", "edgeft.finetune.gradual:run", 6, _ADAPTING),
    Method(
        "finetune",
        "first_n_frozen",
        "edgeft.finetune.config:FirstNFrozenConfig",
        "edgeft.finetune.first_n_frozen:run",
        4,
        _ADAPTING,
    ),
    Method("finetune", "bitfit", "edgeft.finetune.config:BitFitConfig", "edgeft.finetune.bitfit:run", 4, _ADAPTING),
    Method("finetune", "lora", "edgeft.finetune.config:LoraConfig", "edgeft.finetune.adapted:run", 4, _ADAPTING),
    Method("finetune", "ia3", "edgeft.finetune.config:Ia3Config", "edgeft.finetune.adapted:run", 4, _ADAPTING),
    Method("finetune", "adapter", "edgeft.finetune.config:AdapterConfig", "edgeft.finetune.adapted:run", 3, _ADAPTING),
    Method("finetune", "prompt", "edgeft.finetune.config:PromptConfig", "edgeft.finetune.adapted:run", 3, _ADAPTING),
    Method("finetune", "prefix", "edgeft.finetune.config:PrefixConfig", "edgeft.finetune.adapted:run", 3, _ADAPTING),
    Method("finetune", "hybrid", "edgeft.finetune.config:HybridConfig", "edgeft.finetune.hybrid:run", 3, _ADAPTING),
    Method("finetune", "none", "edgeft.finetune.config:NoneConfig", "edgeft.finetune.none:run", 1, _TRAINING),
    *(
        Method("merge", name, "edgeft.finetune.config:MergeConfig", "edgeft.finetune.merge:run", 3, _ADAPTING)
        for name in (
            *("frozen", "gradual", "first_n_frozen", "bitfit", "hybrid"),
            *("lora", "ia3", "adapter", "prompt", "prefix"),
        )
    ),
    Method(
        "propose",
        "halving",
        "edgeft.pipeline.stage_configs:ProposeConfig",
        "edgeft.pipeline.propose:run",
        5,
        (*_DISTILLING, "onnx", "onnx-ir"),
    ),
    Method(
        "distill", "knowledge", "edgeft.distill.config:KnowledgeConfig", "edgeft.distill.knowledge:run", 6, _DISTILLING
    ),
    Method("answers", "teacher", "edgeft.distill.config:AnswersConfig", "edgeft.distill.answers:run", 2, _DISTILLING),
    Method(
        "export",
        "onnx",
        "edgeft.graph.config:ExportConfig",
        "edgeft.graph.export:run",
        5,
        (*_GRAPH, "onnxscript", "timm", "torch"),
    ),
    Method(
        "compress",
        "auto",
        "edgeft.quantize.config:CompressConfig",
        "edgeft.quantize.stage:run",
        21,
        (*_GRAPH, "torch"),
    ),
    Method("choose", "fastest", "edgeft.pipeline.stage_configs:ChooseConfig", "edgeft.pipeline.choose:run", 1, _GRAPH),
    Method(
        "decide", "argmax", "edgeft.pipeline.stage_configs:ArgmaxConfig", "edgeft.pipeline.decide:argmax", 2, _RUNTIME
    ),
    Method(
        "decide",
        "threshold",
        "edgeft.pipeline.stage_configs:ThresholdConfig",
        "edgeft.pipeline.decide:threshold",
        2,
        _RUNTIME,
    ),
    Method(
        "verify",
        "parity",
        "edgeft.pipeline.stage_configs:VerifyConfig",
        "edgeft.pipeline.verification.stage:run",
        13,
        (*_GRAPH, "pillow", "torch"),
    ),
)
"""The built-in methods, in the order of the stages; `lower` has one per exporter. A finetune method that writes
only what it trained has a merge method of its name."""

_METHOD_GROUP = "edgeft.methods"
_EXPORTER_GROUP = "edgeft.exporters"
_SUGGESTIONS = 3
_NOTHING_INSTALLED = "none is installed; from a source tree: pip install -e . (entry points come with an install)"


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry point that cannot be used, and why."""

    group: str
    name: str
    reason: str


def methods(kind: str | None = None) -> tuple[Method, ...]:
    """Return every method that can be listed, of one `kind` or of all.

    Raises:
        UsageError: two methods share kind and name.
    """
    listed = [*METHODS, *_lowerings(), *_third_party()[0]]
    seen: dict[tuple[str, str], Method] = {}
    for method in listed:
        first = seen.setdefault((method.kind, method.name), method)
        if first is not method:
            raise UsageError(
                f"two methods are called {method.kind}/{method.name}: {first.run} and {method.run}",
                hint="uninstall one of the two distributions, or ask its author to rename the method",
            )
    return tuple(method for method in listed if kind is None or method.kind == kind)


def find(kind: str, name: str) -> Method:
    """Return the method `kind`/`name`.

    Raises:
        UsageError: there is none; the nearest three names are given.
    """
    known = {method.name: method for method in methods(kind)}
    if name in known:
        return known[name]
    message = f"no {kind} method is called {name!r}"
    why = [item for item in broken() if item.name == name]
    if why:
        message = f"the {kind} method {name!r} cannot be imported: {why[0].reason}"
    raise UsageError(message, hint=suggestion(name, sorted(known)))


def suggestion(name: str, known: list[str]) -> str:
    """Return a hint: the nearest three of `known` to `name`, or all of them where none is near."""
    near = difflib.get_close_matches(name, known, n=_SUGGESTIONS, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(item) for item in near) + "?"
    return f"known: {', '.join(known)}" if known else _NOTHING_INSTALLED


def resolve(reference: str) -> Any:  # noqa: ANN401 - what a string names has any type
    """Import what "module:name" names.

    Raises:
        DeviceError: a library it needs is not installed; names the extra that brings it.
    """
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in {"edgeft", "edgeft_exporters"}:
            raise
        raise DeviceError(
            f"{reference} needs the package {error.name!r}, which is not installed",
            hint="pip install 'edgeft[train]'",
        ) from error
    return getattr(module, attribute)


def exporters() -> dict[str, str]:
    """Return the installed exporters: name -> "module:class"."""
    return {point.name: point.value for point in _points(_EXPORTER_GROUP)}


def exporter(name: str) -> Exporter:
    """Return a new exporter for the target `name`.

    Raises:
        UsageError: no exporter has that name.
        DeviceError: its runtime is not installed.
    """
    known = exporters()
    if name not in known:
        raise UsageError(f"no exporter is called {name!r}", hint=suggestion(name, sorted(known)))
    return cast("Exporter", resolve(known[name])())


def exporter_distribution(name: str) -> str | None:
    """Return the distribution that the exporter `name` comes from, or None where it is edgeft itself or not known."""
    found = [point.dist.name for point in _points(_EXPORTER_GROUP) if point.name == name and point.dist is not None]
    return found[0] if found and found[0] != "edgeft" else None


def exporter_needs(name: str) -> tuple[str, ...]:
    """Return the distributions whose versions the results for the target `name` depend on, beside onnxruntime.

    Raises:
        UsageError: no exporter has that name.
        DeviceError: it cannot be imported.
    """
    foreign = exporter_distribution(name)
    needs: tuple[str, ...] = getattr(exporter(name), "needs", ())
    return (*needs, *([foreign] if foreign else []))


def broken() -> tuple[Broken, ...]:
    """Return the third-party entry points that cannot be imported, each with its reason."""
    return _third_party()[1]


def _lowerings() -> tuple[Method, ...]:
    config, run = "edgeft.pipeline.stage_configs:LowerConfig", "edgeft.pipeline.lower:run"
    return tuple(Method("lower", name, config, run, 3, _GRAPH) for name in sorted(exporters()))


def _points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group), key=lambda point: (point.name, point.value)))


@cache
def _third_party() -> tuple[tuple[Method, ...], tuple[Broken, ...]]:
    found: list[Method] = []
    failed: list[Broken] = []
    for point in _points(_METHOD_GROUP):
        try:
            loaded = point.load()
        except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything; it is listed, not hidden
            failed.append(Broken(_METHOD_GROUP, point.name, f"{type(error).__name__}: {error}"))
            continue
        listed = loaded if isinstance(loaded, tuple | list) else (loaded,)
        good = tuple(item for item in listed if isinstance(item, Method))
        found.extend(good)
        if len(good) != len(listed) or not good:
            failed.append(Broken(_METHOD_GROUP, point.name, f"{point.value} is not a Method or a tuple of them"))
    return tuple(found), tuple(failed)
