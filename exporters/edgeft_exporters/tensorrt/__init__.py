"""TensorRT on NVIDIA GPUs, explicit quantization: placement, lowering to a ready ONNX file, and a conformance lint.

Unverified on hardware: no engine of it was ever built where edgeft was made. Importing this imports no runtime.
"""

from edgeft_exporters.tensorrt.exporter import TensorRtExporter

__all__ = ["TensorRtExporter"]
