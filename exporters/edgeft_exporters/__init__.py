"""Exporters: each knows one target runtime."""
