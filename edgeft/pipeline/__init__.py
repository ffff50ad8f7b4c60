"""Walks the plan, applies gates, writes the run record."""
