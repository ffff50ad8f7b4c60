"""HTML and JSON from one run record."""
