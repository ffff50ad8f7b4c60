"""The device side: load a bundle, preprocess, predict, time (numpy, onnxruntime, pillow)."""
