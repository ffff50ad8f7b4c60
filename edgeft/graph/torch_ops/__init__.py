"""ONNX operators as small differentiable torch functions, one module per theme; `table.py` lists them all.

Every function takes the node, for its attributes, and then the node's inputs, `None` where an optional one is absent.
It means what the operator's definition in opset 13 or later means. Imports torch: needs `edgeft[train]`.
"""
