"""Pack, open and check bundles."""
