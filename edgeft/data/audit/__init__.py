"""What is wrong, or worth knowing, about a dataset before anything is trained on it: one module per question."""
