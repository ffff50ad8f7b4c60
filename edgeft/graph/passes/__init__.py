"""Graph passes that onnx_ir and onnxscript do not have, one per file.

A pass is a function `name_(model) -> PassReport`: it mutates an `onnx_ir.Model`, says which nodes it changed and which
it considered and refused, with the reason. A second run changes nothing, and outputs stay what they were.
"""
