"""Updates beyond Numba's on the emulated CUDA kernels: SGD and renormalisation at once, settings in device memory."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends, ops

from .launch import run
from .storage import STORAGES, stored

emulated = backends.get("emulated")


def state(shape, dtype=np.float32):
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(dtype) for _ in range(3)]


# The last has filters that do not fit into shared memory.
@pytest.mark.parametrize("shape", [(5, 3, 3, 4), (1, 1), (7, 300), (3, 8200)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inside", [True, False])
def test_both_in_one_pass(shape, dtype, inside):
    """The bits of sgd_step, then renormalize_filters; some filters above the radius, some below."""
    for radius in (0.5, 1.0, 3.0):
        expected, got = state(shape, dtype), state(shape, dtype)
        for arrays in (expected, got):
            arrays[0][::2] *= dtype(2)
        run("sgd_step", *expected, 0.1, 0.9, 1e-3, inside)
        run("renormalize_filters", expected[0], radius)
        run("sgd_filters", got[0], got[1], None, got[2], 0.1, 0.9, 1e-3, inside, radius)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("storage", STORAGES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(4, 30), (2, 8200)])
def test_a_copy_of_sixteen_bits(shape, storage):
    weight, velocity, gradient = state(shape)
    copy = emulated.empty(shape, storage[2])
    run("sgd_filters", weight, velocity, copy, gradient, 0.1, 0.9, 1e-3, True, 0.9)
    np.testing.assert_array_equal(copy, stored(weight, storage))
    with pytest.raises(ValueError, match="type does not fit"):
        run("sgd_filters", weight, velocity, np.zeros(shape, np.int64), gradient, 0.1, 0.9, 1e-3, True, 0.9)


@pytest.mark.parametrize("shape", [(8, 12), (7, 3)])
def test_settings_in_memory(shape):
    """A rate and a counter that the kernels read are as good as ones that come with the call."""
    rate, root, step = np.array([0.1]), np.array([0.3]), np.array([2**33 + 5], np.uint64)
    for name, after in [
        ("sgd_step", (0.9, 1e-3, True)),
        ("sgd_filters", (0.9, 1e-3, False, 1.0)),
        ("adam_step", (0.9, 0.99, 0.1, 0.01, None, 1e-8, 1e-3)),
    ]:
        results = []
        for in_memory in (False, True):
            arrays = [*state(shape), np.ones(shape, np.float32)]
            given = {"sgd_step": arrays[:3], "sgd_filters": [*arrays[:2], None, arrays[2]], "adam_step": arrays}[name]
            numbers = [(root if in_memory else 0.3) if value is None else value for value in after]
            run(name, *given, rate if in_memory else 0.1, *numbers)
            results.append(arrays)
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one, other)
    x = state(shape)[0]
    y = emulated.empty(shape, np.float32)
    run("dropout", y, x, 2**31, 2.0, 7, step, 0)
    np.testing.assert_array_equal(y, ops.dropout(x, 0.5, seed=7, step=2**33 + 5))


def test_settings_of_a_wrong_type_or_size():
    arrays = state((2, 3))
    with pytest.raises(ValueError, match="a setting in memory is not one number"):
        run("sgd_step", *arrays, np.zeros(2), 0.9, 0.0, True)
    with pytest.raises(ValueError, match="type does not fit"):
        run("sgd_step", *arrays, np.zeros(1, np.float32), 0.9, 0.0, True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_guarded_rate(dtype):
    """Rates as they came while all losses are finite, else NaN: and then nothing is written, by any update."""
    settings, guarded = np.array([0.1, 0.3, 1e300]), emulated.empty(3, np.float64)
    losses = np.random.default_rng(0).standard_normal(700).astype(dtype)
    for place, value, fine in ((0, 1.0, True), (699, np.nan, False), (300, np.inf, False), (31, -np.inf, False),
                               (255, np.nan, False)):
        given = losses.copy()
        given[place] = value
        run("guard_settings", guarded, settings, given)
        np.testing.assert_array_equal(guarded, settings if fine else np.full(3, np.nan))
    run("guard_settings", guarded, settings, losses[:0])
    np.testing.assert_array_equal(guarded, settings)
    rate = np.array([np.nan])
    for shape in ((8, 12), (7, 3), (1, 8200)):
        arrays = [*state(shape, dtype), np.ones(shape, dtype)]
        copies = [array.copy() for array in arrays]
        run("sgd_step", *arrays[:3], rate, 0.9, 1e-3, True)
        run("sgd_filters", *arrays[:2], None, arrays[2], rate, 0.9, 1e-3, False, 1e-3)
        run("adam_step", *arrays, rate, 0.9, 0.99, 0.1, 0.01, rate, 1e-8, 1e-3)
        for one, other in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("inside", [True, False])
def test_sgd_and_renormalisation_for_every_backend(inside):
    """`ops.sgd_filters`: one pass here, two operations on Numba, the same bits."""
    settings = {"learning_rate": 0.1, "momentum": 0.9, "decay": 1e-3, "rate_in_velocity": inside, "radius": 0.9}
    results = []
    for backend in (emulated, backends.get("numba")):
        results.append(state((6, 3, 3, 2)))
        ops.sgd_filters(*results[-1], **settings, backend=backend)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=2 * np.finfo(np.float32).eps)
    for wrong, text in (({"radius": 0.0}, "radius is 0.0"), ({"learning_rate": np.inf}, "learning_rate is inf")):
        with pytest.raises(ValueError, match=f"(sgd_filters|sgd_step): {text}"):
            ops.sgd_filters(*results[0], **settings | wrong, backend=emulated)
