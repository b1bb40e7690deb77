"""Anything with DLPack or __cuda_array_interface__ goes into `zfcore.ops`, and results come out as its kind.

    python examples/python/any_array.py

NumPy's arrays and, where they are installed, PyTorch's, JAX's and (with a GPU) CuPy's. No copy is made where
the array is dense, channels last, already.
"""

import importlib.util

import numpy as np

from zfcore import backends, ops

maps = np.random.default_rng(0).normal(0, 1, (2, 13, 13, 8)).astype(np.float32)  # (N, H, W, C)
arrays = {"numpy": maps}
if importlib.util.find_spec("torch"):
    import torch

    arrays["torch"] = torch.from_numpy(maps)
if importlib.util.find_spec("jax"):
    import jax.numpy

    arrays["jax"] = jax.numpy.asarray(maps)
if backends.why_not("cuda") is None:
    import cupy

    arrays["cupy"] = cupy.asarray(maps)

expected, _ = ops.max_pool(maps, window=3, stride=2)
for name, array in arrays.items():
    y, switches = ops.max_pool(array, window=3, stride=2)
    same = np.array_equal(np.asarray(backends.to_numpy(y) if name == "cupy" else y), expected)
    print(f"{name}: {type(y).__name__} {tuple(y.shape)} and {switches.dtype}, equal: {same}")
