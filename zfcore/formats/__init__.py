"""Model files: safetensors that this package saved."""
