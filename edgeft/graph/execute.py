"""An onnxruntime session as the build side uses it: in memory, threads explicit, no spinning, CPU only."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnxruntime as ort

from edgeft.core.errors import DataError

_ERRORS_ONLY = 3


def run(session: Any, outputs: Sequence[str], feeds: Mapping[str, Any], what: str) -> list[Any]:  # noqa: ANN401 - untyped there
    """Return `outputs` of an `onnxruntime.InferenceSession` for `feeds`.

    Raises:
        DataError: it does not take them; says that they are `what`.
    """
    try:
        return list(session.run(list(outputs), dict(feeds)))
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise DataError(
            f"onnxruntime cannot run the graph on {what}: {' '.join(str(error).split())}",
            hint="check what it reads there: sizes, and ids within its tables",
        ) from error


def open_session(model: onnx.ModelProto, threads: int, *, optimise: bool = True) -> Any:  # noqa: ANN401 - onnxruntime is untyped
    """Return an `onnxruntime.InferenceSession` of `model`.

    Args:
        model: at most 2 GB, no external data.
        threads: intra-op threads.
        optimise: False runs every node as it is written: Q/DQ pairs in exact float steps, no integer fusion.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
