"""onnxruntime on CPUs, in three profiles: integer placement, lowering, lint, session and device facts.

Importing this imports neither onnx nor onnxruntime: a device without onnx can still ask for the fingerprint.
"""

from edgeft_exporters.onnx.exporter import OnnxArm64Exporter, OnnxExporter, OnnxVnniExporter

__all__ = ["OnnxArm64Exporter", "OnnxExporter", "OnnxVnniExporter"]
