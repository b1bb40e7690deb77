"""Parameter updates, in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backends, checks
from .crop import in_place

__all__ = ["adam_step", "renormalize_filters", "sgd_filters", "sgd_step"]


def _parameters(where: str, gradient: Any, **changed: Any) -> None:
    for name, array in {**changed, "gradient": gradient}.items():
        checks.floats(where, name, array)
        checks.shape(where, name, array, gradient.shape)
    checks.same_dtype(where, gradient=gradient, **changed)
    in_place(where, **changed)


def _number(where: str, name: str, value: Any, below: float = math.inf, above_zero: bool = False) -> None:
    least = "above 0" if above_zero else "at least 0"
    allowed = f"a finite number {least}" + (f" and below {below:g}" if below < math.inf else "")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        checks.fail(where, name, value, allowed, TypeError)
    checks.require(0 <= value < below and not (above_zero and value == 0), where, name, value, allowed)


def _in_memory(where: str, name: str, value: Any, backend: Any) -> bool:
    """Whether a setting is an array that the kernels read when they run, which must then be one float64."""
    if not backends.is_array(value):
        return False
    checks.require(hasattr(backend, "guard_settings"), where, name, f"an array on the backend {backend.name}",
                   "a number; kernels that read settings from memory are of 'cuda'")
    checks.require(value.dtype == np.float64 and tuple(value.shape) == (1,), where, name,
                   f"an array of {value.dtype} {tuple(value.shape)}", "a number, or one of float64 (1,)")
    return True


def sgd_step(weight: Any, velocity: Any, gradient: Any, *, learning_rate: Any, momentum: float = 0.0,
             decay: float = 0.0, rate_in_velocity: bool = True, backend: Any = None) -> None:
    """One step of SGD with momentum, in place on weight and velocity.

    With `rate_in_velocity` (Krizhevsky et al. 2012, section 5; cuda-convnet):
    v = momentum v - learning_rate (g + decay w), w += v. Without (PyTorch's form):
    v = momentum v + g + decay w, w -= learning_rate v. Equal while the rate is constant (up to the
    velocity's scale), different when it changes.

    Parameters
    ----------
    weight, velocity : any shape, the same; changed
    gradient : of that shape
    learning_rate, momentum, decay : numbers; the first, where the backend can (cuda), also a float64 array (1,)
        of it that the kernel reads when it runs, for captured steps: NaN there takes no step
    rate_in_velocity : which of the two forms
    """
    where = "sgd_step"
    backend = backend or backends.of(weight)
    _parameters(where, gradient, weight=weight, velocity=velocity)
    if not _in_memory(where, "learning_rate", learning_rate, backend):
        _number(where, "learning_rate", learning_rate)
    _number(where, "momentum", momentum)
    _number(where, "decay", decay)
    backend.sgd_step(weight, velocity, backend.asarray(gradient), learning_rate, momentum, decay,
                     bool(rate_in_velocity))


def adam_step(weight: Any, first: Any, second: Any, gradient: Any, *, step: Any, learning_rate: Any = 1e-3,
              beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, decay: float = 0.0,
              backend: Any = None) -> None:
    """One step of Adam (Kingma and Ba 2015, algorithm 1), in place on weight and both moments.

    `decay` adds decay * weight to the gradient (L2, as torch.optim.Adam).

    Parameters
    ----------
    weight, first, second : any shape, the same; changed
    gradient : of that shape
    step : from 1. With a learning rate in memory, as in `sgd_step`: an array like it with sqrt(1 - beta2^step)
    learning_rate, beta1, beta2, epsilon : numbers; in memory the first is learning_rate / (1 - beta1^step)
    decay : weight decay
    """
    where = "adam_step"
    backend = backend or backends.of(weight)
    _parameters(where, gradient, weight=weight, first=first, second=second)
    in_memory = [_in_memory(where, name, value, backend) for name, value in (("learning_rate", learning_rate),
                                                                             ("step", step))]
    checks.require(all(in_memory) or not any(in_memory), where, "step", step, "in memory as the learning rate is")
    if not all(in_memory):
        checks.integer(where, "step", step, 1)
        _number(where, "learning_rate", learning_rate)
    _number(where, "beta1", beta1, below=1)
    _number(where, "beta2", beta2, below=1)
    _number(where, "epsilon", epsilon, above_zero=True)
    _number(where, "decay", decay)
    if all(in_memory):
        launch = getattr(backend, "adam_step_in_memory")  # noqa: B009  (not every backend has it)
        launch(weight, first, second, backend.asarray(gradient), learning_rate, step, beta1, beta2, epsilon, decay)
    else:
        backend.adam_step(weight, first, second, backend.asarray(gradient), step, learning_rate, beta1, beta2,
                          epsilon, decay)


def renormalize_filters(weight: Any, radius: float, *, backend: Any = None) -> None:
    """Rescale, in place, each filter (axis 0) whose root mean square exceeds `radius` to that radius.

    Zeiler & Fergus 2014, section 3: radius 0.1. Filters at or below it are left alone.

    Parameters
    ----------
    weight : (filters, ...); changed
    radius : the largest root mean square that a filter may keep
    """
    where = "renormalize_filters"
    backend = backend or backends.of(weight)
    checks.floats(where, "weight", weight)
    checks.require(weight.ndim >= 2, where, "weight.shape", tuple(weight.shape), "at least 2 dimensions")
    _number(where, "radius", radius, above_zero=True)
    in_place(where, weight=weight)
    backend.renormalize_filters(weight, radius)


def sgd_filters(weight: Any, velocity: Any, gradient: Any, *, learning_rate: Any, radius: float, momentum: float = 0.0,
                decay: float = 0.0, rate_in_velocity: bool = True, backend: Any = None) -> None:
    """`sgd_step`, then `renormalize_filters`, in place; in one pass over memory where the backend has it.

    Parameters
    ----------
    weight, velocity : (filters, ...); changed
    gradient : of that shape
    learning_rate, momentum, decay, rate_in_velocity : as in `sgd_step`
    radius : as in `renormalize_filters`
    """
    where = "sgd_filters"
    backend = backend or backends.of(weight)
    _parameters(where, gradient, weight=weight, velocity=velocity)
    checks.require(weight.ndim >= 2, where, "weight.shape", tuple(weight.shape), "at least 2 dimensions")
    _number(where, "radius", radius, above_zero=True)
    launch = getattr(backend, "sgd_filters", None)
    if launch is None:
        sgd_step(weight, velocity, gradient, learning_rate=learning_rate, momentum=momentum, decay=decay,
                 rate_in_velocity=rate_in_velocity, backend=backend)
        return renormalize_filters(weight, radius, backend=backend)
    if not _in_memory(where, "learning_rate", learning_rate, backend):
        _number(where, "learning_rate", learning_rate)
    _number(where, "momentum", momentum)
    _number(where, "decay", decay)
    launch(weight, velocity, None, backend.asarray(gradient), learning_rate, momentum, decay, bool(rate_in_velocity),
           radius)
    return None
