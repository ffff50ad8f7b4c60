"""What the artifact is worth on the test split: each step of the way, what each hop changed, metrics, students."""
