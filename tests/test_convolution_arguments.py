"""What convolution and its gradients refuse."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import ops
from zfcore.backends import numba as backend


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def giant(*shape):
    """An array of any size in a few bytes of memory."""
    return np.broadcast_to(np.float32(0), shape)


X, W = zeros(1, 5, 5, 4), zeros(6, 3, 3, 4)
BAD = [
    (ValueError, "stride", lambda: ops.convolution(X, W, stride=2**70)),
    (ValueError, "dilation", lambda: ops.convolution(X, zeros(6, 1, 1, 4), dilation=2**70)),
    (ValueError, "padding", lambda: ops.convolution(X, W, padding=(0, 0, 0, 2**70))),
    (ValueError, "x.shape", lambda: ops.convolution(zeros(5, 5, 4), W)),
    (ValueError, "weight.shape", lambda: ops.convolution(X, zeros(6, 3, 4))),
    (ValueError, "x.shape", lambda: ops.convolution(zeros(0, 0, 0, 0), W)),
    (ValueError, "weight.shape", lambda: ops.convolution(X, zeros(0, 0, 0, 0))),
    (ValueError, "x.shape", lambda: ops.convolution(zeros(1, 0, 5, 4), W, padding=2)),
    (ValueError, "weight.shape", lambda: ops.convolution(X, zeros(0, 3, 3, 4))),
    (ValueError, "weight.shape", lambda: ops.convolution(X, zeros(6, 0, 3, 4))),
    (ValueError, "weight.shape", lambda: ops.convolution(X, zeros(6, 3, 3, 0))),
    (ValueError, "weight.shape", lambda: ops.convolution(X, zeros(6, 3, 3, 5))),
    (ValueError, "weight.shape", lambda: ops.convolution(X, zeros(6, 6, 3, 4))),
    (ValueError, "weight.shape", lambda: ops.convolution(X, W, dilation=3)),
    (ValueError, "groups", lambda: ops.convolution(X, zeros(6, 3, 3, 1), groups=3)),
    (ValueError, "groups", lambda: ops.convolution(X, zeros(6, 3, 3, 1), groups=4)),
    (ValueError, "groups", lambda: ops.convolution(X, W, groups=0)),
    (ValueError, "groups", lambda: ops.convolution(X, W, groups=-1)),
    (TypeError, "groups", lambda: ops.convolution(X, W, groups=1.0)),
    (ValueError, "stride", lambda: ops.convolution(X, W, stride=0)),
    (ValueError, "stride", lambda: ops.convolution(X, W, stride=(1, -2))),
    (ValueError, "stride", lambda: ops.convolution(X, W, stride=(1, 2, 3))),
    (TypeError, "stride", lambda: ops.convolution(X, W, stride=1.5)),
    (TypeError, "stride", lambda: ops.convolution(X, W, stride=True)),
    (ValueError, "dilation", lambda: ops.convolution(X, W, dilation=0)),
    (ValueError, "padding", lambda: ops.convolution(X, W, padding=-1)),
    (ValueError, "padding", lambda: ops.convolution(X, W, padding=(1, 2, 3))),
    (TypeError, "padding", lambda: ops.convolution(X, W, padding="same")),
    (ValueError, "activation", lambda: ops.convolution(X, W, activation="tanh")),
    (ValueError, "algorithm", lambda: ops.convolution(X, W, algorithm="fft")),
    (ValueError, "bias.shape", lambda: ops.convolution(X, W, zeros(5))),
    (ValueError, "bias.shape", lambda: ops.convolution(X, W, zeros(6, 1))),
    (TypeError, "bias.dtype", lambda: ops.convolution(X, W, np.zeros(6, np.int64))),
    (TypeError, "dtypes", lambda: ops.convolution(X, W.astype(np.float64))),
    (TypeError, "dtypes", lambda: ops.convolution(X, W, zeros(6, dtype=np.float64))),
    (TypeError, "x.dtype", lambda: ops.convolution(X.astype(np.int32), W)),
    (TypeError, "x.dtype", lambda: ops.convolution(X.astype(np.float16), W)),
    (TypeError, "x is", lambda: ops.convolution([[1.0]], W)),
    (TypeError, "weight is", lambda: ops.convolution(X, None)),
    (ValueError, "x.shape", lambda: ops.convolution(giant(2, 2**15, 2**15, 4), W)),
    (ValueError, "weight.shape", lambda: ops.convolution(X, giant(2**20, 2**10, 2, 4), padding=2**10)),
    (ValueError, "output", lambda: ops.convolution(X, W, padding=2**16)),
    (ValueError, "output", lambda: ops.convolution(X, W, padding=2**40)),
    (ValueError, "dy.shape", lambda: ops.convolution_input_gradient(zeros(1, 4, 3, 6), W, (1, 5, 5, 4))),
    (ValueError, "dy.shape", lambda: ops.convolution_input_gradient(zeros(1, 3, 3, 5), W, (1, 5, 5, 4))),
    (ValueError, "dy.shape", lambda: ops.convolution_input_gradient(zeros(2, 3, 3, 6), W, (1, 5, 5, 4))),
    (ValueError, "dy.shape", lambda: ops.convolution_input_gradient(zeros(3, 3, 6), W, (1, 5, 5, 4))),
    (ValueError, "input_shape", lambda: ops.convolution_input_gradient(zeros(1, 3, 3, 6), W, (5, 5, 4))),
    (ValueError, "input_shape", lambda: ops.convolution_input_gradient(zeros(1, 3, 3, 6), W, (1, 5, 0, 4))),
    (ValueError, "input_shape", lambda: ops.convolution_input_gradient(zeros(1, 3, 3, 6), W, (-1, 5, 5, 4))),
    (ValueError, "input_shape",
     lambda: ops.convolution_input_gradient(zeros(1, 3, 3, 6), W, (1, 2**40, 2**40, 4))),
    (TypeError, "input_shape", lambda: ops.convolution_input_gradient(zeros(1, 3, 3, 6), W, 5)),
    (TypeError, "input_shape", lambda: ops.convolution_input_gradient(zeros(1, 3, 3, 6), W, (1, 5.0, 5, 4))),
    (TypeError, "dtypes",
     lambda: ops.convolution_input_gradient(zeros(1, 3, 3, 6, dtype=np.float64), W, (1, 5, 5, 4))),
    (ValueError, "dy.shape", lambda: ops.convolution_weight_gradient(zeros(1, 3, 4, 6), X, (6, 3, 3, 4))),
    (ValueError, "weight_shape", lambda: ops.convolution_weight_gradient(zeros(1, 3, 3, 6), X, (6, 3, 3))),
    (ValueError, "weight_shape", lambda: ops.convolution_weight_gradient(zeros(1, 3, 3, 6), X, (6, 0, 3, 4))),
    (ValueError, "weight.shape", lambda: ops.convolution_weight_gradient(zeros(1, 3, 3, 6), X, (6, 3, 3, 2))),
    (ValueError, "stride",
     lambda: ops.convolution_weight_gradient(zeros(1, 3, 3, 6), X, (6, 3, 3, 4), stride=0)),
    (ValueError, "dy.shape", lambda: ops.channel_sum(zeros(3))),
    (ValueError, "dy.shape", lambda: ops.channel_sum(zeros(3, 0))),
    (TypeError, "dy.dtype", lambda: ops.channel_sum(np.zeros((3, 3), np.int32))),
]


@pytest.mark.parametrize("error, argument, call", BAD, ids=[f"{i}-{bad[1]}" for i, bad in enumerate(BAD)])
def test_bad_input_is_named(error, argument, call, monkeypatch):
    """The error says operation, argument and what is allowed, before anything is allocated."""
    def refuse(*_):
        raise AssertionError("allocated before the checks")
    monkeypatch.setattr(backend, "empty", refuse)
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert argument in message and "; allowed: " in message
    assert message.startswith(("convolution", "channel_sum"))
