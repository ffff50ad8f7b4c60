"""A student small enough for the device, taught by the fine-tuned model."""
