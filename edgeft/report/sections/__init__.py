"""The report's sections, one module for each question a reader has: the record in, markup out."""
