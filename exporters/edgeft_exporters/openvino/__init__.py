"""OpenVINO on CPUs: integer placement, lowering to its IR, lint, session, profile and device facts.

Importing this imports neither onnx nor openvino: the base install can list what is missing.
"""

from edgeft_exporters.openvino.exporter import OpenVinoExporter

__all__ = ["OpenVinoExporter"]
