"""onnxruntime on x86 CPUs: integer placement, lowering, lint, session and device facts.

Importing this imports neither onnx nor onnxruntime: a device without onnx can still ask for the fingerprint.
"""

from edgeft_exporters.onnx.exporter import OnnxExporter

__all__ = ["OnnxExporter"]
