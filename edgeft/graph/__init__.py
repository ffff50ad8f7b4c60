"""ONNX graph export and passes, one per file."""
