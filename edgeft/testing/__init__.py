"""The exams that every method and exporter must pass, built-in or not."""
