"""One training loop; one module per method; losses as small composable objects."""
