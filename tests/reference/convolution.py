"""Convolution and its gradients: loops over output cells and taps, in float64."""

from __future__ import annotations

import numpy as np


def _taps(input_shape, output_shape, window, stride, padding, dilation):
    """Every (row, column, tap row, tap column, input row, input column) inside the input."""
    _, height, width, _ = input_shape
    _, rows, columns, _ = output_shape
    for p in range(rows):
        for q in range(columns):
            for r in range(window[0]):
                for s in range(window[1]):
                    y = p * stride[0] - padding[0] + r * dilation[0]
                    x = q * stride[1] - padding[2] + s * dilation[1]
                    if 0 <= y < height and 0 <= x < width:
                        yield p, q, r, s, y, x


def output_shape(input_shape, weight_shape, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)):
    """(N, P, Q, K) by counting window positions one by one."""
    n, height, width, _ = input_shape
    k, window_height, window_width, _ = weight_shape
    rows = sum(1 for top in range(-padding[0], height + padding[1], stride[0])
               if top + dilation[0] * (window_height - 1) < height + padding[1])
    columns = sum(1 for left in range(-padding[2], width + padding[3], stride[1])
                  if left + dilation[1] * (window_width - 1) < width + padding[3])
    return n, rows, columns, k


def convolution(x, weight, bias=None, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """y (N, P, Q, K); weight is (K, R, S, C / groups)."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    shape = output_shape(x.shape, weight.shape, stride, padding, dilation)
    y = np.zeros(shape)
    filters, channels = weight.shape[0] // groups, weight.shape[3]
    for p, q, r, s, row, column in _taps(x.shape, shape, weight.shape[1:3], stride, padding, dilation):
        for g in range(groups):
            k, c = slice(g * filters, (g + 1) * filters), slice(g * channels, (g + 1) * channels)
            y[:, p, q, k] += x[:, row, column, c] @ weight[k, r, s].T
    return y if bias is None else y + bias.astype(np.float64)


def input_gradient(dy, weight, input_shape, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """dx (N, H, W, C)."""
    dy, weight = dy.astype(np.float64), weight.astype(np.float64)
    dx = np.zeros(input_shape)
    filters, channels = weight.shape[0] // groups, weight.shape[3]
    for p, q, r, s, row, column in _taps(input_shape, dy.shape, weight.shape[1:3], stride, padding, dilation):
        for g in range(groups):
            k, c = slice(g * filters, (g + 1) * filters), slice(g * channels, (g + 1) * channels)
            dx[:, row, column, c] += dy[:, p, q, k] @ weight[k, r, s]
    return dx


def weight_gradient(dy, x, weight_shape, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """dweight (K, R, S, C / groups)."""
    dy, x = dy.astype(np.float64), x.astype(np.float64)
    dweight = np.zeros(weight_shape)
    filters, channels = weight_shape[0] // groups, weight_shape[3]
    for p, q, r, s, row, column in _taps(x.shape, dy.shape, weight_shape[1:3], stride, padding, dilation):
        for g in range(groups):
            k, c = slice(g * filters, (g + 1) * filters), slice(g * channels, (g + 1) * channels)
            dweight[k, r, s] += dy[:, p, q, k].T @ x[:, row, column, c]
    return dweight
