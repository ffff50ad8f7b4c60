"""Where models come from and how heads are replaced."""
