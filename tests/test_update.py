"""SGD, Adam and filter renormalisation: against float64 formulas and PyTorch, in place, bad arguments."""

from __future__ import annotations

import numpy as np
import pytest
from reference import update as reference
from tolerance import close, gamma, same_bits

from zfcore import ops
from zfcore.backends import numba as backend
from zfcore.kernels import threads

SHAPES = [(7,), (3, 2, 2, 5), (1, 1), (0, 3), (5, 40000)]


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check_sgd(shape, dtype, inside, rate=0.01, momentum=0.9, decay=5e-4) -> None:
    weight, velocity, gradient = (normal(shape, dtype, seed) for seed in range(3))
    new = reference.sgd(weight, velocity, gradient, rate, momentum, decay, inside)
    size = np.abs(weight) + np.abs(velocity) + np.abs(gradient)
    kept = gradient.copy()
    ops.sgd_step(weight, velocity, gradient, learning_rate=rate, momentum=momentum, decay=decay,
                 rate_in_velocity=inside)
    close(weight, new[0], gamma(8, dtype) * size)
    close(velocity, new[1], gamma(8, dtype) * size)
    same_bits(gradient, kept)


def check_adam(shape, dtype, step=1, decay=0.01) -> None:
    weight, first, gradient = (normal(shape, dtype, seed) for seed in range(3))
    second = np.abs(normal(shape, dtype, 3))
    settings = {"step": step, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "decay": decay}
    new = reference.adam(weight, first, second, gradient, rate=0.01, **settings)
    ops.adam_step(weight, first, second, gradient, learning_rate=0.01, **settings)
    change = 0.1 * np.abs(new[1]) / np.sqrt(new[2] + 1e-30) * 10
    close(weight, new[0], gamma(4, dtype) * np.abs(new[0]) + gamma(30, dtype) * (change + 1))
    close(first, new[1], gamma(8, dtype) * 4)
    close(second, new[2], gamma(8, dtype) * np.maximum(new[2], 1))


def check_renormalize(weight, radius) -> None:
    exact = reference.renormalize(weight, radius)
    ops.renormalize_filters(weight, radius)
    close(weight, exact, gamma(4, weight.dtype) * np.abs(exact))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inside", [True, False])
def test_sgd(shape, dtype, inside):
    check_sgd(shape, dtype, inside)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adam(shape, dtype):
    for step in (1, 2, 1000):
        check_adam(shape, dtype, step)


def test_the_place_of_the_rate_matters_when_it_changes():
    """Constant rate: the same weights. A drop: the papers' form keeps the old velocity, PyTorch's scales it."""
    def run(inside, rates):
        weight, velocity = np.ones(3), np.zeros(3)
        for rate in rates:
            ops.sgd_step(weight, velocity, 2 * weight, learning_rate=rate, momentum=0.9, rate_in_velocity=inside)
        return weight

    np.testing.assert_allclose(run(True, [0.1] * 5), run(False, [0.1] * 5), rtol=1e-12)
    assert np.abs(run(True, [0.1, 0.01]) - run(False, [0.1, 0.01])).max() > 0.01


@pytest.mark.parametrize("shape", [(4, 3, 3, 5), (2, 7), (1, 1), (3, 1000), (0, 2), (2, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_renormalize(shape, dtype):
    weight = normal(shape, dtype)
    weight[1:] *= 0.01  # the others stay below the radius
    before = weight.copy()
    check_renormalize(weight, 0.1)
    same_bits(weight[1:], before[1:])
    if weight[:1].size:
        np.testing.assert_allclose(np.sqrt((weight[0].astype(np.float64) ** 2).mean()), 0.1, rtol=1e-6)


def test_renormalize_only_above_the_radius():
    weight = np.full((3, 4), 0.1)
    weight[1] *= 2
    weight[2] = 0
    ops.renormalize_filters(weight, 0.1 * (1 + 1e-12))
    np.testing.assert_allclose(weight, [[0.1] * 4, [0.1] * 4, [0] * 4])


def test_pytorch():
    torch = pytest.importorskip("torch")
    start = normal((50,), np.float64)
    for make, step in (
        (lambda w: torch.optim.SGD([w], lr=0.01, momentum=0.9, weight_decay=0.1),
         lambda w, s, g, _: ops.sgd_step(w, s[0], g, learning_rate=0.01, momentum=0.9, decay=0.1,
                                         rate_in_velocity=False)),
        (lambda w: torch.optim.Adam([w], lr=0.01, weight_decay=0.1),
         lambda w, s, g, i: ops.adam_step(w, *s, g, step=i, learning_rate=0.01, decay=0.1)),
    ):
        theirs = torch.from_numpy(start.copy()).requires_grad_()
        ours, slots = start.copy(), (np.zeros(50), np.zeros(50))
        optimizer = make(theirs)
        for i in range(1, 6):
            gradient = normal((50,), np.float64, i)
            theirs.grad = torch.from_numpy(gradient.copy())
            optimizer.step()
            step(ours, slots, gradient, i)
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_bits_do_not_depend_on_threads():
    def run():
        weight, first, gradient = (normal((9, 50001), seed=seed) for seed in range(3))
        second = np.abs(first)
        ops.sgd_step(weight, first, gradient, learning_rate=0.1, momentum=0.9)
        ops.renormalize_filters(weight, 0.1)
        ops.adam_step(weight, first, second, gradient, step=3)
        return weight, first, second

    try:
        threads.set_num_threads(1)
        expected = run()
        for count in (2, 3):
            threads.set_num_threads(count)
            for a, b in zip(run(), expected, strict=True):
                same_bits(a, b)
    finally:
        threads.set_num_threads(None)


# ------------------------------------------------------------------------------------ bad input


def arrays():
    return [np.ones((2, 3), np.float32) for _ in range(4)]


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(("change", "error"), [
    (read_only, ValueError), (lambda a: np.repeat(a, 2, axis=1)[:, ::2], ValueError), (lambda a: a[:1], ValueError),
    (lambda a: a.astype(np.int32), TypeError), (lambda a: a.astype(np.float64), TypeError),
    (lambda a: a.tolist(), TypeError),
    (lambda a: np.frombuffer(bytearray(25), np.uint8)[1:].view(np.float32).reshape(2, 3), ValueError),
], ids=["read-only", "strided", "shape", "integers", "another type", "a list", "misaligned"])
def test_bad_parameters(change, error):
    """Nothing is written: what can be compared stays as it was."""
    for place, name in enumerate(("weight", "velocity")):
        given = arrays()[:3]
        given[place] = change(given[place])
        with pytest.raises(error, match=f"sgd_step: .*{name}|array is a builtins.list"):
            ops.sgd_step(*given, learning_rate=0.1)
        assert all((np.asarray(a) == 1).all() or place == i for i, a in enumerate(given))
    for place, name in enumerate(("weight", "first", "second")):
        given = arrays()
        given[place] = change(given[place])
        with pytest.raises(error, match=f"adam_step: .*{name}|array is a builtins.list"):
            ops.adam_step(*given, step=1)
    if error is ValueError and change is not None:
        weight = change(np.ones((2, 3), np.float32))
        if weight.shape == (2, 3):
            with pytest.raises(ValueError, match="renormalize_filters: weight.flags is .*allowed"):
                ops.renormalize_filters(weight, 0.1)


def test_parameters_that_share_memory():
    memory = np.ones(9, np.float32)
    with pytest.raises(ValueError, match="velocity is 'an array that shares memory with weight'"):
        ops.sgd_step(memory[:6], memory[3:], np.ones(6, np.float32), learning_rate=0.1)
    assert (memory == 1).all()


@pytest.mark.parametrize(("settings", "argument", "error"), [
    ({"learning_rate": -0.1}, "learning_rate", ValueError), ({"learning_rate": "0.1"}, "learning_rate", TypeError),
    ({"learning_rate": float("nan")}, "learning_rate", ValueError),
    ({"learning_rate": float("inf")}, "learning_rate", ValueError),
    ({"learning_rate": 0.1, "momentum": -1}, "momentum", ValueError),
    ({"learning_rate": 0.1, "decay": -1}, "decay", ValueError),
])
def test_bad_sgd_settings(settings, argument, error):
    with pytest.raises(error, match=f"sgd_step: {argument} is .*allowed"):
        ops.sgd_step(*arrays()[:3], **settings)


@pytest.mark.parametrize(("settings", "argument", "error"), [
    ({"step": 0}, "step", ValueError), ({"step": 1.5}, "step", TypeError),
    ({"step": 1, "beta1": 1.0}, "beta1", ValueError), ({"step": 1, "beta2": -0.1}, "beta2", ValueError),
    ({"step": 1, "epsilon": 0}, "epsilon", ValueError),
])
def test_bad_adam_settings(settings, argument, error):
    with pytest.raises(error, match=f"adam_step: {argument} is .*allowed"):
        ops.adam_step(*arrays(), **settings)


def test_bad_radius():
    for radius in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="renormalize_filters: radius is"):
            ops.renormalize_filters(arrays()[0], radius)
    with pytest.raises(ValueError, match="weight.shape is"):
        ops.renormalize_filters(np.ones(3, np.float32), 0.1)


# ------------------------------------------------------------------ the checks above can fail


def test_wrong_updates_are_noticed(monkeypatch):
    original = backend.sgd_step
    monkeypatch.setattr(backend, "sgd_step", lambda w, v, g, rate, momentum, decay, inside: original(
        w, v, g, rate, momentum, decay, not inside))
    with pytest.raises(AssertionError):
        check_sgd((7,), np.float32, True)
    adam = backend.adam_step
    monkeypatch.setattr(backend, "adam_step", lambda w, m, v, g, step, *rest: adam(w, m, v, g, step + 1, *rest))
    with pytest.raises(AssertionError):
        check_adam((7,), np.float32, 2)
    renormalize = backend.renormalize_filters
    monkeypatch.setattr(backend, "renormalize_filters", lambda w, radius: renormalize(w, radius * 1.001))
    with pytest.raises(AssertionError):
        check_renormalize(normal((2, 9)), 0.1)
