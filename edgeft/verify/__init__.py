"""Numerics, accuracy, latency statistics: pure functions that return numbers (numpy only)."""
