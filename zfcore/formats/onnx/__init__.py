"""ONNX files in: graphs of NCHW tensors become networks of this engine, weights converted once."""

from .load import Import, load, read

__all__ = ["Import", "load", "read"]
