"""Launchers over a compiled extension: the names and arguments of the Numba ones.

The extension's functions take arrays by pointer, sizes from their shapes, and a stream last. What
the Numba launchers do in Python besides (settings in the array's type, small workspaces, a flag read
back) is done here, once for every compiled backend.
"""

from __future__ import annotations

import importlib.util
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import checks
from .fused import Fused, number

_WHOLE = ((1, 1), (0, 0, 0, 0), (1, 1), 1)  # stride, padding, dilation, groups of a linear layer
_KEPT = 64  # arrays of bounds on the device
_UNBOUNDED = 2**30  # what 64-bit bounds beyond any map become on the device


def find() -> tuple[Path | None, str]:
    """The file of the compiled kernels, or why there is none.

    ZFCORE_CUDA_MODULE names the only folder to look in; else it is the package, then a checkout's build.
    """
    package = Path(__file__).parents[1]
    named = os.environ.get("ZFCORE_CUDA_MODULE")
    for folder in [Path(named)] if named else [package, package.parent / "build" / "gpu"]:
        for file in sorted(folder.glob("_cuda*.so")):
            return file, ""
    return None, "the CUDA kernels are not compiled: zfcore was installed without nvcc, or with ZFCORE_CUDA=0"


def load() -> ModuleType:
    """The compiled kernels; they load without a driver too."""
    file, missing = find()
    spec = importlib.util.spec_from_file_location("_cuda", file) if file else None
    if spec is None or spec.loader is None:
        raise ImportError(missing)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets() -> str:
    """What the compiled kernels were built for, as in "sm_80, sm_90a, PTX of 90", or why there are none."""
    try:
        built = load().targets
    except ImportError as error:
        return str(error)
    return ", ".join(f"sm_{name}" if kind == "real" else f"PTX of {name}"
                     for name, _, kind in (each.partition("-") for each in built.split()))


class Launchers(Fused):
    """One method for each launcher of `backends.numba`, over `extension`.

    Parameters
    ----------
    extension : the compiled module
    arrays : NumPy, or a module of the same names for the device's arrays
    stream : returns the current stream as an integer
    """

    def __init__(self, extension: ModuleType, arrays: Any, stream: Callable[[], int]) -> None:
        self._extension = extension
        self._arrays = arrays
        self._stream = stream
        self._kept: OrderedDict[bytes, Any] = OrderedDict()

    def _run(self, name: str, *arguments: Any) -> None:
        getattr(self._extension, name)(*arguments, self._stream())

    def _bounds(self, bounds: Any, shape: Any | None) -> Any:
        """Bounds (N, 4) as the device's int32; None where they are those of `shape`, whole maps.

        A batch of crops asks for the same ones in every layer of its size, up and down: the last ones are kept.
        """
        if shape is not None and (bounds == (0, shape[1], 0, shape[2])).all():
            return None
        clipped = np.clip(bounds, -_UNBOUNDED, _UNBOUNDED).astype(np.int32)
        key = clipped.tobytes()
        if key not in self._kept:
            while len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
            self._kept[key] = self._arrays.asarray(clipped)
        return self._kept[key]

    def _counted(self, counted: Any, bounds: Any, shape: Any) -> Any:
        """What an average's divisor counts; None: the same cells as `bounds`."""
        if (counted == bounds).all():
            return None
        whole = self._bounds(counted, shape)
        return self._arrays.asarray(counted.astype(np.int32)) if whole is None else whole

    # --------------------------------------------------------------------------------- convolution

    def convolution_forward(self, y: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
                            groups: int, relu: bool, precision: str = "float32") -> None:
        """y = activation(x convolved with weight + bias)."""
        self._run("convolution_forward", y, x, weight, bias, stride, padding, dilation, groups, relu,
                  number(precision))

    def convolution_input_gradient(self, dx: Any, dy: Any, weight: Any, stride: Any, padding: Any, dilation: Any,
                                   groups: int, precision: str = "float32") -> None:
        """dx = adjoint of the convolution applied to dy."""
        self._run("convolution_input_gradient", dx, dy, weight, stride, padding, dilation, groups, number(precision))

    def convolution_weight_gradient(self, dweight: Any, dy: Any, x: Any, stride: Any, padding: Any, dilation: Any,
                                    groups: int, precision: str = "float32") -> None:
        """dweight = sum over images and cells of dy times the patches of x."""
        settings = (stride, padding, dilation, groups)
        elements = self._extension.weight_gradient_workspace(dweight, dy, x, *settings)
        workspace = self._arrays.empty(elements, dweight.dtype)
        self._run("convolution_weight_gradient", dweight, workspace, dy, x, *settings, number(precision))

    def linear_forward(self, y: Any, x: Any, weight: Any, bias: Any, relu: bool, precision: str = "float32") -> None:
        """y = activation(x weight' + bias)."""
        workspace = self._pieces(y, x.shape[1], precision)
        self._run("linear_forward", y, workspace, x, weight, bias, relu, number(precision))

    def linear_input_gradient(self, dx: Any, dy: Any, weight: Any, precision: str = "float32") -> None:
        """dx = dy weight."""
        workspace = self._pieces(dx, dy.shape[1], precision)
        self._run("linear_input_gradient", dx, workspace, dy, weight, number(precision))

    def _pieces(self, result: Any, terms: int, precision: str) -> Any:
        """Room for the sums over pieces of a linear layer's terms, of which there are so many in each result."""
        dtype = np.float32 if result.dtype in checks.SHORT else result.dtype
        return self._arrays.empty(self._extension.linear_workspace(*result.shape, terms, number(precision)), dtype)

    def linear_weight_gradient(self, dweight: Any, dy: Any, x: Any, precision: str = "float32") -> None:
        """dweight = dy' x."""
        self.convolution_weight_gradient(_cell(dweight), _cell(dy), _cell(x), *_WHOLE, precision)

    # ------------------------------------------------------------------------------------- pooling

    def max_pool(self, y: Any, switches: Any, x: Any, bounds: Any, window: Any, stride: Any, before: Any) -> None:
        """Fill y and switches (N, P, Q, C) from x (N, H, W, C)."""
        self._run("max_pool", y, switches, x, self._bounds(bounds, x.shape), window, stride, before)

    def check_switches(self, switches: Any, bounds: Any, window: Any, stride: Any, before: Any) -> bool:
        """Whether every switch points at a cell inside its window and inside the map; waits for the answer."""
        bad = self._arrays.zeros(1, np.int32)
        self._run("check_switches", bad, switches, self._bounds(bounds, None), window, stride, before)
        return not int(bad[0])

    def switches_to_flat(self, flat: Any, switches: Any, width: int, window: Any, stride: Any, before: Any) -> None:
        """Fill flat (int64) with row * width + column of each switch's cell."""
        self._run("switches_to_flat", flat, switches, width, window, stride, before)

    def switches_from_flat(self, switches: Any, flat: Any, width: int, window: Any, stride: Any, before: Any) -> bool:
        """Fill switches from flat indices; whether each lies inside its window, whose answer is waited for."""
        bad = self._arrays.zeros(1, np.int32)
        self._run("switches_from_flat", switches, bad, flat, width, window, stride, before)
        return not int(bad[0])

    def max_unpool(self, x: Any, y: Any, switches: Any, bounds: Any, window: Any, stride: Any, before: Any,
                   last_wins: bool) -> None:
        """Fill x (N, H, W, C) with the values of y (N, P, Q, C) at their switches."""
        self._run("max_unpool", x, y, switches, self._bounds(bounds, x.shape), window, stride, before, last_wins)

    def average_pool(self, y: Any, x: Any, bounds: Any, counted: Any, window: Any, stride: Any, before: Any) -> None:
        """Fill y (N, P, Q, C) from x (N, H, W, C)."""
        self._run("average_pool", y, x, self._bounds(bounds, x.shape),
                  self._counted(counted, bounds, x.shape), window, stride, before)

    def average_pool_gradient(self, dx: Any, dy: Any, bounds: Any, counted: Any, window: Any, stride: Any,
                              before: Any) -> None:
        """Fill dx (N, H, W, C) from dy (N, P, Q, C)."""
        self._run("average_pool_gradient", dx, dy, self._bounds(bounds, dx.shape),
                  self._counted(counted, bounds, dx.shape), window, stride, before)

    def global_average_pool(self, y: Any, x: Any) -> None:
        """Fill y (N, C) from x (N, H, W, C)."""
        self._run("global_average_pool", y, x)

    def global_average_pool_gradient(self, dx: Any, dy: Any) -> None:
        """Fill dx (N, H, W, C) from dy (N, C)."""
        self._run("global_average_pool_gradient", dx, dy)

    def map_maximum(self, values: Any, positions: Any, x: Any) -> None:
        """Fill values and positions (N, C) from x (N, H, W, C)."""
        self._run("map_maximum", values, positions, x)

    def global_max_pool_gradient(self, dx: Any, dy: Any, positions: Any) -> None:
        """Fill dx (N, H, W, C) from dy and positions (N, C)."""
        self._run("global_max_pool_gradient", dx, dy, positions)

    # ------------------------------------------------------------------------------- normalization

    def response_norm(self, y: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> None:
        """Fill y from x (..., C)."""
        self._run("response_norm", y, x, size, alpha, beta, k)

    def response_norm_gradient(self, dx: Any, dy: Any, x: Any, size: int, alpha: float, beta: float,
                               k: float) -> None:
        """Fill dx from dy and x (..., C)."""
        self._run("response_norm_gradient", dx, dy, x, size, alpha, beta, k)

    def contrast_norm(self, y: Any, x: Any, bounds: Any, size: int, alpha: float, beta: float, k: float,
                      subtractive: bool) -> None:
        """Fill y from x (N, H, W, C); x less its local mean is kept between two kernels."""
        difference = self._arrays.empty(x.shape, x.dtype)
        self._run("contrast_norm", y, difference, x, self._bounds(bounds, x.shape), size, alpha, beta, k, subtractive)

    def contrast_norm_gradient(self, dx: Any, dy: Any, x: Any, bounds: Any, size: int, alpha: float, beta: float,
                               k: float, subtractive: bool, mean_is_constant: bool) -> None:
        """Fill dx from dy and x (N, H, W, C), by way of five arrays of x's size."""
        workspaces = (self._arrays.empty(x.shape, x.dtype) for _ in range(5))
        self._run("contrast_norm_gradient", dx, *workspaces, dy, x, self._bounds(bounds, x.shape), size, alpha, beta,
                  k, subtractive, mean_is_constant)

    def batch_norm(self, y: Any, x: Any, scale: Any, bias: Any, mean: Any, variance: Any, epsilon: float) -> None:
        """Fill y = (x - mean) * scale / sqrt(variance + epsilon) + bias."""
        multiplier = (scale * _inverse_deviation(variance, epsilon)).astype(x.dtype)
        self._run("scale_channels", y, x, mean, multiplier, bias)

    def batch_norm_gradient(self, dx: Any, dy: Any, scale: Any, variance: Any, epsilon: float) -> None:
        """Fill dx = dy * scale / sqrt(variance + epsilon)."""
        zero = self._arrays.zeros(dy.shape[-1], dy.dtype)
        self.batch_norm(dx, dy, scale, zero, zero, variance, epsilon)

    def _workspace(self, x: Any) -> Any:
        """Room for the parts of a sum over the cells of x (..., C)."""
        channels = x.shape[-1]
        parts = self._extension.channel_sum_parts(x.size // channels if channels else 0)
        return self._arrays.empty((parts, 2, channels), np.float64)

    def _sums(self, a: Any, b: Any, mean: Any) -> Any:
        """Sums over all cells of a * (b - mean) and of a: (2, C), float64."""
        sums = self._arrays.empty((2, a.shape[-1]), np.float64)
        self._run("channel_products", sums, self._workspace(a), a, b, mean)
        return sums

    def batch_statistics(self, mean: Any, variance: Any, x: Any) -> None:
        """Fill the mean and the (biased) variance of every channel of x (..., C), in two passes."""
        cells = x.size // x.shape[-1]
        exact = self._sums(x, x, self._arrays.zeros(x.shape[-1], np.float64))[1] / cells
        mean[:] = exact
        # sum of x (x - mean) loses digits when the mean is large; its first factor must be centred too.
        products, plain = self._sums(x, x, exact)
        variance[:] = (products - exact * (plain - cells * exact)) / cells

    def batch_norm_parameter_gradients(self, dscale: Any, dbias: Any, dy: Any, x: Any, mean: Any, variance: Any,
                                       epsilon: float) -> None:
        """Fill dscale and dbias (C,)."""
        products, plain = self._sums(dy, x, mean.astype(np.float64))
        dscale[:] = products * _inverse_deviation(variance, epsilon)
        dbias[:] = plain

    def batch_norm_training_gradient(self, dx: Any, dscale: Any, dbias: Any, dy: Any, x: Any, mean: Any,
                                     variance: Any, scale: Any, epsilon: float) -> None:
        """Fill dx, dscale and dbias where mean and variance are x's own."""
        products, plain = self._sums(dy, x, mean.astype(np.float64))
        inverse = _inverse_deviation(variance, epsilon)
        dscale[:] = products * inverse
        dbias[:] = plain
        cells = x.size // x.shape[-1]
        self._run("batch_norm_training_gradient", dx, dy, x, mean, (plain / cells).astype(x.dtype),
                  (products * inverse**2 / cells).astype(x.dtype), (scale * inverse).astype(x.dtype))

    def channel_sum(self, sums: Any, dy: Any) -> None:
        """sums[c] = sum over rows of dy[:, c]."""
        self._run("channel_sum", sums, self._workspace(dy), dy)

    # ----------------------------------------------------------------------------------- pointwise

    def relu(self, y: Any, x: Any) -> None:
        """Fill y with x rectified."""
        self._run("relu", y, x)

    def relu_gradient(self, dx: Any, dy: Any, y: Any) -> None:
        """Fill dx with dy where y > 0."""
        self._run("relu_gradient", dx, dy, y)

    def relu_guided(self, dx: Any, dy: Any, y: Any) -> None:
        """Fill dx with max(dy, 0) where y > 0."""
        self._run("relu_guided", dx, dy, y)

    def add(self, y: Any, a: Any, b: Any) -> None:
        """Fill y with a + b; y may be a."""
        self._run("add", y, a, b)

    def dropout(self, y: Any, x: Any, rate: float, seed: int, step: int, first: int) -> None:
        """Fill y (N, ...) with x, each element kept with probability 1 - rate and then scaled."""
        self._run("dropout", y, x, round(rate * 2**32), 1 / (1 - rate), seed, step, first)

    def copy_columns(self, target: Any, source: Any, target_column: int, source_column: int, width: int) -> None:
        """Copy columns between two arrays of the same number of rows, both (rows, columns)."""
        self._run("copy_columns", target, source, target_column, source_column, width)

    def clear_outside(self, x: Any, bounds: Any) -> None:
        """Clear, in place, the cells of x (N, h, w, C) outside `bounds` (N, 4)."""
        self._run("clear_outside", x, self._bounds(bounds, x.shape))

    # ---------------------------------------------------------------------------------------- loss

    def softmax(self, y: Any, x: Any) -> None:
        """Fill y (N, C) with the softmax of x."""
        self._run("softmax", y, x)

    def softmax_cross_entropy(self, losses: Any, y: Any, x: Any, labels: Any) -> None:
        """Fill losses (N,) and probabilities y (N, C) from scores x and labels (int64)."""
        self._run("softmax_cross_entropy", losses, y, x, labels)

    def softmax_gradient(self, dx: Any, dy: Any, y: Any) -> None:
        """Fill dx (N, C) from dy and the softmax y."""
        self._run("softmax_gradient", dx, dy, y)

    def softmax_cross_entropy_gradient(self, dx: Any, y: Any, labels: Any) -> None:
        """Fill dx (N, C), the gradient of the mean loss."""
        self._run("softmax_cross_entropy_gradient", dx, y, labels)

    # -------------------------------------------------------------------------------------- update

    def sgd_step(self, weight: Any, velocity: Any, gradient: Any, learning_rate: float, momentum: float,
                 decay: float, rate_in_velocity: bool) -> None:
        """Change weight and velocity."""
        self._run("sgd_step", weight, velocity, gradient, learning_rate, momentum, decay, rate_in_velocity)

    def adam_step(self, weight: Any, first: Any, second: Any, gradient: Any, step: int, learning_rate: float,
                  beta1: float, beta2: float, epsilon: float, decay: float) -> None:
        """Change weight and both moments."""
        self._run("adam_step", weight, first, second, gradient, learning_rate / (1 - beta1**step), beta1, beta2,
                  1 - beta1, 1 - beta2, (1 - beta2**step) ** 0.5, epsilon, decay)

    def renormalize_filters(self, weight: Any, radius: float) -> None:
        """Rescale the filters of weight (filters, ...) whose root mean square exceeds radius."""
        self._run("renormalize_filters", weight, radius)


def _cell(matrix: Any) -> Any:
    """(N, C) as maps of one cell, (N, 1, 1, C)."""
    return matrix.reshape(matrix.shape[0], 1, 1, matrix.shape[1])


def _inverse_deviation(variance: Any, epsilon: float) -> Any:
    return 1 / np.sqrt(variance.astype(np.float64) + epsilon)
