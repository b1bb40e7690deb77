"""Depthwise convolution: one filter for each channel, vectorised over the channels.

A matrix product would have one column there. Filters come transposed, (taps, channels), so that the
inner loop runs over consecutive numbers. Every sum takes its taps in row-major order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compile import kernel
from .matrix import flat
from .threads import parallel

# ---------------------------------------------------------------------------------------- kernels


@kernel
def add_products(sums, left, right):
    """sums += left * right, number by number."""
    for i in range(sums.size):
        sums[i] += left[i] * right[i]


@kernel
def _forward(begin, end, y, x, taps, bias, output, source, window, stride, padding, dilation, relu):
    """Items: rows of the output. `output` and `source` are (height, width) of one image."""
    channels, floor = bias.size, y.dtype.type(0 if relu else -np.inf)
    for item in range(begin, end):
        image, row = item // output[0], item % output[0]
        for column in range(output[1]):
            place = (item * output[1] + column) * channels
            sums = y[place : place + channels]
            sums[:] = 0
            for r in range(window[0]):
                line = row * stride[0] - padding[0] + r * dilation[0]
                if line < 0 or line >= source[0]:
                    continue
                for s in range(window[1]):
                    along = column * stride[1] - padding[1] + s * dilation[1]
                    if along < 0 or along >= source[1]:
                        continue
                    start = ((image * source[0] + line) * source[1] + along) * channels
                    add_products(sums, x[start:], taps[(r * window[1] + s) * channels :])
            for c in range(channels):
                value = sums[c] + bias[c]
                sums[c] = floor if value <= floor else value


@kernel
def _input_gradient(begin, end, dx, dy, taps, channels, output, source, window, stride, padding, dilation):
    """Items: rows of dx. Taps run backwards, so that the cells of dy come in order."""
    for item in range(begin, end):
        image, row = item // source[0], item % source[0]
        for column in range(source[1]):
            place = (item * source[1] + column) * channels
            sums = dx[place : place + channels]
            sums[:] = 0
            for r in range(window[0] - 1, -1, -1):
                line = row + padding[0] - r * dilation[0]
                if line < 0 or line % stride[0] or line // stride[0] >= output[0]:
                    continue
                for s in range(window[1] - 1, -1, -1):
                    along = column + padding[1] - s * dilation[1]
                    if along < 0 or along % stride[1] or along // stride[1] >= output[1]:
                        continue
                    cell = (image * output[0] + line // stride[0]) * output[1] + along // stride[1]
                    add_products(sums, dy[cell * channels :], taps[(r * window[1] + s) * channels :])


@kernel
def _weight_gradient(begin, end, dtaps, dy, x, images, channels, output, source, window, stride, padding,
                     dilation):
    """Items: taps. Each row of the output is summed by itself and then added."""
    line_sums = np.empty(channels, dy.dtype)
    for tap in range(begin, end):
        r, s = tap // window[1], tap % window[1]
        sums = dtaps[tap * channels : (tap + 1) * channels]
        sums[:] = 0
        for item in range(images * output[0]):
            image, row = item // output[0], item % output[0]
            line = row * stride[0] - padding[0] + r * dilation[0]
            if line < 0 or line >= source[0]:
                continue
            line_sums[:] = 0
            for column in range(output[1]):
                along = column * stride[1] - padding[1] + s * dilation[1]
                if along < 0 or along >= source[1]:
                    continue
                start = ((image * source[0] + line) * source[1] + along) * channels
                add_products(line_sums, dy[(item * output[1] + column) * channels :], x[start:])
            for c in range(channels):
                sums[c] += line_sums[c]


# -------------------------------------------------------------------------------------- launchers


def _taps(weight: np.ndarray) -> np.ndarray:
    """Filters (channels, height, width, 1) as a flat (taps, channels)."""
    return np.ascontiguousarray(weight.reshape(weight.shape[0], -1).T).reshape(-1)


def depthwise_forward(y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: Any,
                      padding: Any, dilation: Any, relu: bool) -> None:
    """y = activation(each channel of x convolved with its filter + bias)."""
    parallel(_forward, y.shape[0] * y.shape[1], flat(y), flat(x), _taps(weight), flat(bias), y.shape[1:3],
             x.shape[1:3], weight.shape[1:3], stride, (padding[0], padding[2]), dilation, int(relu), grain=4)


def depthwise_input_gradient(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray, stride: Any, padding: Any,
                             dilation: Any) -> None:
    """dx = adjoint of the depthwise convolution applied to dy."""
    parallel(_input_gradient, dx.shape[0] * dx.shape[1], flat(dx), flat(dy), _taps(weight), dx.shape[3],
             dy.shape[1:3], dx.shape[1:3], weight.shape[1:3], stride, (padding[0], padding[2]), dilation,
             grain=4)


def depthwise_weight_gradient(dweight: np.ndarray, dy: np.ndarray, x: np.ndarray, stride: Any, padding: Any,
                              dilation: Any) -> None:
    """dweight = sum over images and cells of dy times what each tap saw."""
    channels, height, width = dweight.shape[:3]
    dtaps = np.empty((height * width, channels), dweight.dtype)
    parallel(_weight_gradient, height * width, flat(dtaps), flat(dy), flat(x), x.shape[0], channels,
             dy.shape[1:3], x.shape[1:3], (height, width), stride, (padding[0], padding[2]), dilation)
    dweight.reshape(channels, -1)[:] = dtaps.T
