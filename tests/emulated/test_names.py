"""Every backend offers the same launchers, and whole networks run on the emulated one."""

from __future__ import annotations

import inspect

import numpy as np

from zfcore import backends
from zfcore.backends.fused import Fused

OPTIONAL = {"fast_convolution"}  # a backend without it computes every convolution directly
# What compiled backends have and Numba has not.
BESIDES = {"adam_step_in_memory", "convert", "convolution_pool", "guard_settings", "pad_channels", "sgd_filters",
           "unpool_filter"}


def test_the_same_names_and_parameters():
    numba, emulated = backends.get("numba"), backends.get("emulated")
    for name, function in vars(numba).items():
        helper = getattr(function, "__module__", "") == "zfcore.kernels.memory" and name != "empty"
        if inspect.isfunction(function) and not helper and name not in OPTIONAL and not name.startswith("_"):
            given = list(inspect.signature(getattr(emulated, name)).parameters)
            expected = list(inspect.signature(function).parameters)
            assert given[:len(expected)] == expected, name
            assert set(given[len(expected):]) <= {"precision"}, name


def test_what_compiled_backends_have_besides():
    """Each is a function of ops.h too, so that the C++ interface and Python's offer the same."""
    numba, emulated = backends.get("numba"), backends.get("emulated")
    assert {name for name in vars(Fused) if not name.startswith("_")} == BESIDES
    for name in BESIDES:
        assert not hasattr(numba, name)
        assert hasattr(emulated, name)
        assert hasattr(emulated.extension, name.removesuffix("_in_memory"))


def test_a_read_only_output_is_refused():
    emulated = backends.get("emulated")
    y = np.zeros((2, 3), np.float32)
    y.flags.writeable = False
    try:
        emulated.relu(y, np.ones((2, 3), np.float32))
    except ValueError as error:
        assert "read-only" in str(error)
    else:
        raise AssertionError("a read-only output was written")
