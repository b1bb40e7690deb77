"""Arrays of other libraries, good and bad, into `zfcore.ops` and out."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

from zfcore import backends, ops
from zfcore.backends import outside

X = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)


class Exporter:
    """An array of some library: NumPy's DLPack, with what a test changes."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device, self.used = array, device, False

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of its own for Exporter, with from_dlpack."""
    made = types.ModuleType("exporting")
    made.from_dlpack = Exporter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "exporting", made)
    for kind in (Exporter, UsedUp):
        monkeypatch.setattr(kind, "__module__", "exporting")


def test_results_are_of_the_callers_kind() -> None:
    y, switches = ops.max_pool(Exporter(X), window=2, stride=1)
    assert type(y) is type(switches) is Exporter
    expected = ops.max_pool(X, window=2, stride=1)
    np.testing.assert_array_equal(y.array, expected[0])
    np.testing.assert_array_equal(switches.array, expected[1])
    mixed = ops.add(X, Exporter(X))
    assert type(mixed) is Exporter


def test_no_copy_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.shares_memory(outside.take("relu", "x", Exporter(X), False), X)
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(X.copy())
    assert outside.take("relu", "x", tensor, True).ctypes.data == tensor.data_ptr()


@pytest.mark.parametrize("array", [X[:, ::2], X.transpose(0, 2, 1, 3), X[:0]], ids=["strided", "transposed", "empty"])
def test_any_strides(array: np.ndarray) -> None:
    np.testing.assert_array_equal(ops.relu(Exporter(array)).array, np.maximum(array, 0))


def test_misaligned() -> None:
    """Four bytes that do not start at a multiple of four are copied first."""
    memory = np.zeros(X.nbytes + 1, np.uint8)
    odd = memory[1:].view(np.float32).reshape(X.shape)
    odd[...] = X
    np.testing.assert_array_equal(ops.relu(odd), np.maximum(X, 0))
    with pytest.raises(ValueError, match="aligned"):
        ops.renormalize_filters(odd, 1.0)


def test_changed_in_place() -> None:
    torch = pytest.importorskip("torch")
    weight, velocity, gradient = torch.ones(2, 3), torch.zeros(2, 3), torch.ones(2, 3)
    assert ops.sgd_step(weight, velocity, gradient, learning_rate=0.5) is None
    assert torch.equal(weight, torch.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="shares memory with weight"):
        ops.sgd_step(weight, weight, gradient, learning_rate=0.5)


class UsedUp(Exporter):
    """A capsule is taken once: afterwards NumPy finds it renamed."""

    capsule: object = None

    def __dlpack__(self, **options: object) -> object:
        UsedUp.capsule = UsedUp.capsule or super().__dlpack__(**options)
        return UsedUp.capsule


@pytest.mark.parametrize(("array", "says"), [
    (Exporter(X, (4, 0)), "a device of DLPack's kind 4"),
    (Exporter(X.astype("S4")), "allowed: arrays on the CPU or on a CUDA GPU"),
    (SimpleNamespace(__cuda_array_interface__={"shape": (1,), "typestr": "<f4", "data": (0, False), "version": 3}),
     "cannot be taken over"),
])
def test_what_is_refused(array: object, says: str) -> None:
    with pytest.raises(ValueError, match=f"relu: x of type .*{says}"):
        ops.relu(array)


def test_a_capsule_serves_once() -> None:
    UsedUp.capsule = None
    once = UsedUp(X)
    ops.relu(once)
    with pytest.raises(ValueError, match="relu: x of type .* cannot be taken over"):
        ops.relu(once)
    with pytest.raises(TypeError, match="relu: x is of type PyCapsule"):
        ops.relu(X.__dlpack__())


def test_read_only() -> None:
    """Inputs may be; what is changed may not."""
    closed = X.copy()
    closed.flags.writeable = False
    np.testing.assert_array_equal(ops.relu(closed), np.maximum(X, 0))
    jax = pytest.importorskip("jax")
    with pytest.raises(ValueError, match="renormalize_filters: weight of type .*: it is read-only"):
        ops.renormalize_filters(jax.numpy.asarray(X), 1.0)


def test_types_and_gradients_of_torch() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="detach"):
        ops.relu(torch.ones(1, 2, 2, 1, requires_grad=True))
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(TypeError, match="float32 or float64 .the backend 'numba' has no kernels of 16 bits"):
            ops.relu(torch.ones(1, 2, 2, 1, dtype=dtype), backend=backends.get("numba"))
