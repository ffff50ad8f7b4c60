"""The edge: YAML in, frozen objects out, and a plan with reasons."""
