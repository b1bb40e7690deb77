"""Parameter updates, in place."""

from __future__ import annotations

import math
from typing import Any

from .. import backends, checks
from .crop import in_place

__all__ = ["adam_step", "renormalize_filters", "sgd_step"]


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


def sgd_step(weight: Any, velocity: Any, gradient: Any, *, learning_rate: float, momentum: float = 0.0,
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
    learning_rate, momentum, decay : numbers
    rate_in_velocity : which of the two forms
    """
    where = "sgd_step"
    backend = backend or backends.of(weight)
    _parameters(where, gradient, weight=weight, velocity=velocity)
    _number(where, "learning_rate", learning_rate)
    _number(where, "momentum", momentum)
    _number(where, "decay", decay)
    backend.sgd_step(weight, velocity, backend.asarray(gradient), learning_rate, momentum, decay,
                     bool(rate_in_velocity))


def adam_step(weight: Any, first: Any, second: Any, gradient: Any, *, step: int, learning_rate: float = 1e-3,
              beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, decay: float = 0.0,
              backend: Any = None) -> None:
    """One step of Adam (Kingma and Ba 2015, algorithm 1), in place on weight and both moments.

    `step` counts from 1. `decay` adds decay * weight to the gradient (L2, as torch.optim.Adam).

    Parameters
    ----------
    weight, first, second : any shape, the same; changed
    gradient : of that shape
    step : from 1
    learning_rate, beta1, beta2, epsilon : numbers
    decay : weight decay
    """
    where = "adam_step"
    backend = backend or backends.of(weight)
    _parameters(where, gradient, weight=weight, first=first, second=second)
    checks.integer(where, "step", step, 1)
    _number(where, "learning_rate", learning_rate)
    _number(where, "beta1", beta1, below=1)
    _number(where, "beta2", beta2, below=1)
    _number(where, "epsilon", epsilon, above_zero=True)
    _number(where, "decay", decay)
    backend.adam_step(weight, first, second, backend.asarray(gradient), step, learning_rate, beta1, beta2, epsilon,
                      decay)


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
