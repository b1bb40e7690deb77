"""Convolution with tf32 factors on emulated tensor cores: exact on integers, near float64 else."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends, ops

from .test_convolution import CASES, integers

emulated = backends.get("emulated")

# Beyond the others' cases: more than one tile of cells, of filters and of channels, groups on vectors.
MORE = [
    ((2, 9, 10, 8), 68, (3, 3), 1, 1, 1, 1),
    ((1, 8, 8, 72), 8, (1, 3), 2, 1, 1, 1),
    ((1, 6, 6, 16), 136, (2, 2), 1, 0, 1, 2),
]


def settings(stride, padding, dilation, groups):
    """As the public functions hand them to a launcher."""
    pairs = [value if isinstance(value, tuple) else (value, value) for value in (stride, dilation)]
    pads = padding if isinstance(padding, tuple) else (padding, padding)
    return pairs[0], pads if len(pads) == 4 else (pads[0], pads[0], pads[1], pads[1]), pairs[1], groups


def run(name, *arguments):
    emulated._launchers._run(name, *arguments)


@pytest.mark.parametrize(("shape", "filters", "window", "stride", "padding", "dilation", "groups"), CASES + MORE)
def test_exact_on_integers(shape, filters, window, stride, padding, dilation, groups):
    """Small integers are tf32 numbers, and float32 sums of their products are exact."""
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    given = settings(stride, padding, dilation, groups)
    x = integers(shape, np.float32, 0)
    weight, bias = integers((filters, *window, shape[3] // groups), np.float32, 1), integers(filters, np.float32, 2)
    expected = ops.convolution(x, weight, bias, **options, activation="relu")
    y = emulated.empty(expected.shape, np.float32)
    run("convolution_forward", y, x, weight, bias, *given, True, True)
    np.testing.assert_array_equal(y, expected)

    dy = integers(y.shape, np.float32, 3)
    dx = emulated.empty(shape, np.float32)
    run("convolution_input_gradient", dx, dy, weight, *given, True)
    np.testing.assert_array_equal(dx, ops.convolution_input_gradient(dy, weight, shape, **options))

    dweight = emulated.empty(weight.shape, np.float32)
    workspace = emulated.empty(emulated.extension.weight_gradient_workspace(dweight, dy, x, *given), np.float32)
    run("convolution_weight_gradient", dweight, workspace, dy, x, *given, True)
    np.testing.assert_array_equal(dweight, ops.convolution_weight_gradient(dy, x, weight.shape, **options))


def test_rounding_bound():
    """|y - y64| <= (2 * 2^-11 + 2^-22 + gamma(K + 2)) * (|x| conv |w|): both factors rounded, sums in float32."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 6, 7, 12)).astype(np.float32)
    weight = generator.standard_normal((9, 3, 3, 12)).astype(np.float32)
    exact = ops.convolution(x.astype(np.float64), weight.astype(np.float64), padding=1)
    size = ops.convolution(abs(x).astype(np.float64), abs(weight).astype(np.float64), padding=1)
    y = emulated.empty(exact.shape, np.float32)
    run("convolution_forward", y, x, weight, None, *settings(1, 1, 1, 1), False, True)
    terms, unit = weight[0].size + 2, 2.0**-23
    bound = (2 * 2.0**-11 + 2.0**-22 + terms * unit / (1 - terms * unit)) * size
    assert (abs(y - exact) <= bound).all()
    assert (abs(y - exact) > 2.0**-20 * size).any()  # it is tf32 indeed


def test_float64_has_no_tf32():
    x = np.ones((1, 2, 2, 4))
    with pytest.raises(ValueError, match="tf32 is a precision of float32"):
        run("convolution_forward", x.copy(), x, np.ones((4, 1, 1, 4)), None, *settings(1, 0, 1, 1), False, True)
