"""Image datasets: reading, splitting, auditing, augmenting."""
