"""zfcore: see inside convolutional networks with hand-written kernels."""

__version__ = "0.1.0.dev0"
