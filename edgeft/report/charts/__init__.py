"""The report's figures, each a function from plain numbers to one `<svg>`."""
