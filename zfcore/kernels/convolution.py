"""Convolution by plain loops (to be replaced by the blocked kernels), and channel sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compile import kernel
from .threads import parallel

# ---------------------------------------------------------------------------------------- kernels


@kernel
def _forward(begin, end, y, x, weight, bias, sv, sh, top, left, dv, dh, groups, relu):
    n, p, q, k = y.shape
    _, h, w, c = x.shape
    r, s, cg = weight.shape[1], weight.shape[2], weight.shape[3]
    kg = k // groups
    for item in range(begin, end):
        b, row = item // p, item % p
        for column in range(q):
            for f in range(k):
                first = f // kg * cg
                total = x.dtype.type(0)
                for i in range(r):
                    yy = row * sv - top + i * dv
                    if yy < 0 or yy >= h:
                        continue
                    for j in range(s):
                        xx = column * sh - left + j * dh
                        if xx < 0 or xx >= w:
                            continue
                        for m in range(cg):
                            total += x[b, yy, xx, first + m] * weight[f, i, j, m]
                total += bias[f]
                y[b, row, column, f] = 0 if relu and total <= 0 else total


@kernel
def _input_gradient(begin, end, dx, dy, weight, sv, sh, top, left, dv, dh, groups):
    n, p, q, k = dy.shape
    _, h, w, c = dx.shape
    r, s, cg = weight.shape[1], weight.shape[2], weight.shape[3]
    kg = k // groups
    for item in range(begin, end):
        b, yy = item // h, item % h
        for xx in range(w):
            dx[b, yy, xx, :] = 0
            for i in range(r):
                up = yy + top - i * dv
                if up < 0 or up % sv or up // sv >= p:
                    continue
                for j in range(s):
                    along = xx + left - j * dh
                    if along < 0 or along % sh or along // sh >= q:
                        continue
                    for f in range(k):
                        g = dy[b, up // sv, along // sh, f]
                        first = f // kg * cg
                        for m in range(cg):
                            dx[b, yy, xx, first + m] += g * weight[f, i, j, m]


@kernel
def _weight_gradient(begin, end, dweight, dy, x, sv, sh, top, left, dv, dh, groups):
    n, p, q, k = dy.shape
    _, h, w, c = x.shape
    r, s, cg = dweight.shape[1], dweight.shape[2], dweight.shape[3]
    kg = k // groups
    for f in range(begin, end):
        dweight[f] = 0
        first = f // kg * cg
        for b in range(n):
            for row in range(p):
                for column in range(q):
                    g = dy[b, row, column, f]
                    for i in range(r):
                        yy = row * sv - top + i * dv
                        if yy < 0 or yy >= h:
                            continue
                        for j in range(s):
                            xx = column * sh - left + j * dh
                            if xx < 0 or xx >= w:
                                continue
                            for m in range(cg):
                                dweight[f, i, j, m] += g * x[b, yy, xx, first + m]


@kernel
def _channel_sum(begin, end, sums, dy):
    for c in range(begin, end):
        sums[c] = 0
    for i in range(dy.shape[0]):
        for c in range(begin, end):
            sums[c] += dy[i, c]


# -------------------------------------------------------------------------------------- launchers


def convolution_forward(y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None,
                        stride: Any, padding: Any, dilation: Any, groups: int, relu: bool) -> None:
    """y = activation(x convolved with weight + bias)."""
    if bias is None:
        bias = np.zeros(weight.shape[0], weight.dtype)
    parallel(_forward, y.shape[0] * y.shape[1], y, x, weight, bias, *stride, padding[0], padding[2],
             *dilation, groups, relu)


def convolution_input_gradient(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray, stride: Any, padding: Any,
                               dilation: Any, groups: int) -> None:
    """dx = adjoint of the convolution applied to dy."""
    parallel(_input_gradient, dx.shape[0] * dx.shape[1], dx, dy, weight, *stride, padding[0], padding[2],
             *dilation, groups)


def convolution_weight_gradient(dweight: np.ndarray, dy: np.ndarray, x: np.ndarray, stride: Any, padding: Any,
                                dilation: Any, groups: int) -> None:
    """dweight = sum over images and pixels of dy times the patches of x."""
    parallel(_weight_gradient, dweight.shape[0], dweight, dy, x, *stride, padding[0], padding[2],
             *dilation, groups)


def channel_sum(sums: np.ndarray, dy: np.ndarray) -> None:
    """sums[c] = sum over rows of dy[:, c]."""
    parallel(_channel_sum, sums.shape[0], sums, dy, grain=16)
