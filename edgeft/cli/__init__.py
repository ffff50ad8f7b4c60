"""Typer signatures, nothing else; one module per group of verbs."""
