"""Affine maths, observers, calibration, pair-safe weights, bias correction."""
