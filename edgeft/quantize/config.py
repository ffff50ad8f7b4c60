"""The `compress:` block. Imports pydantic and the standard library only."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from edgeft.config import Config
from edgeft.core.metrics import Metric


class CompressConfig(Config):
    """How the deployment graph is made small; fp32 is always a candidate beside it."""

    precision: Literal["int8", "int4", "fp16", "fp32"] = "int8"
    """`int8`: as `method` says; `int4`: weights of MatMul in 4 bits, a scale for each 32, the rest in float; `fp16`:
    half precision, for devices that compute in it; `fp32`: leave the graph as it is."""
    method: Literal[
        "auto", "minmax", "percentile", "entropy", "mse", "output_error", "gptq", "qat", "dynamic", "weight_only"
    ] = "auto"
    """How int8 is made. How the ranges of activations are chosen, with pair-safe scales and corrected biases: `minmax`,
    the extremes; `percentile`, all but 0.001 % of the values; `entropy`, least KL divergence; `mse`, least squared
    error of the tensor; `output_error`, least squared error of what the next layers make of it. `gptq`: `mse` with
    weights that follow the float graph and closed-form rounding. `qat`: `gptq`, then training with the float graph as
    teacher, where that brings it nearer. `dynamic`: integer products that quantize their input as they run.
    `weight_only`: as `int4`, in 8 bits. `auto`: `dynamic` for a transformer where the target has it, else `gptq` (for a
    transformer with `percentile`, and weights that do not follow) and, while the margin is not held on validation, more
    segments in float, then training."""
    search: bool = False
    """Leave segments of the graph in float where they are measured to be faster on this device; static methods only."""
    threads: PositiveInt = 1
    """Of the measurements of `search`; from verify.latency unless set."""
    calib_images: PositiveInt = 256
    """Training images that set the ranges of activations."""
    bias_images: NonNegativeInt = 96
    """Of these, how many go through the quantized prefix to round weights and correct biases; 0 corrects none."""
    float_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the integer multiplications that `gptq`, `qat` and `auto` may leave in float, around the tensors that
    suffer most from 8 bits; 0 leaves none. 0.08 unless set, and 0 for transformers, which it only makes slower."""
    swap_activations: bool = False
    """Change the architecture: Relu in the place of HardSwish and SiLU, healed by training with the float graph as
    teacher. Faster in int8, some accuracy lost; static methods only."""
    follow: Literal["float", "teacher"] = "float"
    """What the output follows where int8 is trained (`qat`, and `auto` where the margin is not held otherwise): the
    graph in float, or of a distilled student the answers of its teacher (images only)."""
    metric: Metric = "accuracy"
    """What candidates are compared by, on validation; from verify.accuracy unless set."""
    max_drop_pp: PositiveFloat = 2.0
    """How much of it a candidate may lose, in percentage points; from verify.accuracy unless set."""
    target: str = "onnx"
    """The exporter whose placement rules hold."""

    @model_validator(mode="after")
    def _methods_fit(self) -> Self:
        if self.precision != "int8" and self.method != "auto":
            message = f"method {self.method} makes int8, precision is {self.precision}: leave method out"
            raise ValueError(message)
        if self.follow == "teacher" and (self.precision != "int8" or self.method not in {"auto", "qat"}):
            message = "follow: teacher is for int8 that is trained: method qat, or auto"
            raise ValueError(message)
        return self
