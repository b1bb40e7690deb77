"""The CPU backend: NumPy arrays in, Numba kernels over the package's threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.activation import add, copy_columns, dropout, relu, relu_gradient, relu_guided  # noqa: F401
from ..kernels.contrast import contrast_norm, contrast_norm_gradient  # noqa: F401
from ..kernels.convolution import (  # noqa: F401
    channel_sum,
    convolution_forward,
    convolution_input_gradient,
    convolution_weight_gradient,
)
from ..kernels.crop import clear_outside  # noqa: F401
from ..kernels.linear import linear_forward, linear_input_gradient, linear_weight_gradient  # noqa: F401
from ..kernels.loss import (  # noqa: F401
    softmax,
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
    softmax_gradient,
)
from ..kernels.memory import empty, readable  # noqa: F401
from ..kernels.normalization import (  # noqa: F401
    batch_norm,
    batch_norm_gradient,
    batch_norm_parameter_gradients,
    batch_norm_training_gradient,
    batch_statistics,
    response_norm,
    response_norm_gradient,
)
from ..kernels.pooling import (  # noqa: F401
    average_pool,
    average_pool_gradient,
    check_switches,
    global_average_pool,
    global_average_pool_gradient,
    global_max_pool_gradient,
    map_maximum,
    max_pool,
    max_unpool,
    switches_from_flat,
    switches_to_flat,
)
from ..kernels.update import adam_step, renormalize_filters, sgd_step  # noqa: F401
from ..kernels.winograd_weights import fast_convolution  # noqa: F401

name = "numba"
ARRAYS = "numpy"
PRECISIONS = ("float32",)


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Array of zeros of this backend."""
    return np.zeros(shape, dtype)


def asarray(array: Any, dtype: Any = None) -> np.ndarray:
    """C-contiguous, aligned array of this backend; copies only where it must."""
    if type(array) is np.ndarray and dtype in (None, array.dtype) and array.flags.carray:
        return array  # and writeable: the usual case, in a tenth of the time
    return readable(np.require(array, dtype, ["C", "A"]))


def to_numpy(array: np.ndarray) -> np.ndarray:
    """The array itself: it is NumPy's already."""
    return array
