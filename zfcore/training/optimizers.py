"""Optimizers: what one step does to a network's parameters.

An optimizer holds its settings and its state, a flat dict of arrays named after the parameters
("conv1.weight.velocity"), so that a checkpoint can write it down and a resumed run continue it.
Weights decay; biases and normalisation parameters (one dimension) do not, as in the papers' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from .. import checks

__all__ = ["SGD", "Adam", "Optimizer", "optimizer_from_config"]


def _number(where: str, name: str, value: Any, low: float, high: float = float("inf")) -> None:
    """Require a finite number in [low, high]."""
    allowed = f"a number from {low} to {high}" if high < float("inf") else f"a finite number >= {low}"
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        checks.fail(where, name, value, allowed, TypeError)
    checks.require(bool(np.isfinite(value) and low <= value <= high), where, name, value, allowed)


@dataclass
class Optimizer:
    """Common part: the learning rate, the step counter and the state's arrays.

    Attributes
    ----------
    learning_rate : may be changed between steps
    factors : of the learning rate, by layer: {"fc8": 10.0}; 1 for all others
    steps : how many steps were taken
    state : {"conv1.weight.velocity": array}, made at the first step
    """

    slots: ClassVar[tuple[str, ...]] = ()

    learning_rate: float = 1e-2
    factors: dict[str, float] = field(default_factory=dict, kw_only=True)
    steps: int = field(default=0, init=False)
    state: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        name = type(self).__name__
        _number(name, "learning_rate", self.learning_rate, 0)
        checks.require(isinstance(self.factors, dict), name, "factors", self.factors, "numbers by layer")
        for layer, factor in self.factors.items():
            _number(name, f"factors[{layer!r}]", factor, 0)

    def to_config(self) -> dict[str, Any]:
        """Kind and settings, for JSON."""
        settings = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return {"kind": type(self).__name__.lower(), **settings}

    def numbers(self, factor: float) -> tuple[float, ...]:
        """What the next step's update of a parameter reads, where its layer has this factor: new in every step."""
        return (self.learning_rate * factor,)

    def factor(self, name: str) -> float:
        """The learning rate's factor of a parameter."""
        return self.factors.get(name.rpartition(".")[0], 1.0)

    def step(self, ops: Any, parameters: dict[str, Any], gradients: dict[str, Any],
             in_memory: Mapping[float, tuple[Any, ...]] | None = None) -> None:
        """Change `parameters` in place, once.

        Parameters
        ----------
        ops : the operations bound to the parameters' backend
        parameters : {"conv1.weight": array}
        gradients : the same keys; a parameter without a gradient stays as it is
        in_memory : `numbers` of each factor as float64 arrays (1,) of the backend, which the kernels read when they
            run; None: now
        """
        unknown = sorted(set(gradients) - set(parameters))
        checks.require(not unknown, type(self).__name__, "gradients", unknown, "names of parameters")
        self.make_room(ops, {name: parameters[name] for name in gradients})
        self.steps += 1
        for name, gradient in gradients.items():
            factor = self.factor(name)
            read = None if in_memory is None else in_memory[factor]
            self._update(ops, name, parameters[name], gradient, self.learning_rate * factor, read)

    def make_room(self, ops: Any, parameters: Mapping[str, Any]) -> None:
        """All memory that steps on these parameters need: if it is not there, no half of a step is taken."""
        for name, array in parameters.items():
            for slot in self.slots:
                self._slot(ops, f"{name}.{slot}", array)

    def _slot(self, ops: Any, name: str, like: Any) -> Any:
        """The state's array called `name`, zeros at first."""
        if name not in self.state:
            self.state[name] = ops.backend.zeros(tuple(like.shape), like.dtype)
        return self.state[name]

    def _update(self, ops: Any, name: str, weight: Any, gradient: Any, rate: float,
                in_memory: tuple[Any, ...] | None) -> None:
        raise NotImplementedError


@dataclass
class SGD(Optimizer):
    """Gradient descent with momentum, weight decay and the renormalisation of filters.

    Parameters
    ----------
    learning_rate : step size
    momentum : share of the last step that is taken again
    decay : weight decay, added to the gradient of weights as decay * weight
    radius : filters of a convolution whose RMS exceeds it are rescaled to it after the step (Zeiler
        & Fergus, section 3: 0.1); None: filters are left alone
    rate_in_velocity : the velocity holds the learning rate (the papers' form); False: PyTorch's form.
        The same while the rate is constant.
    """

    slots: ClassVar[tuple[str, ...]] = ("velocity",)

    momentum: float = 0.9
    decay: float = 0.0
    radius: float | None = None
    rate_in_velocity: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _number("SGD", "momentum", self.momentum, 0, 1)
        _number("SGD", "decay", self.decay, 0)
        if self.radius is not None:
            _number("SGD", "radius", self.radius, 0)
            checks.require(self.radius > 0, "SGD", "radius", self.radius, "a number above 0, or None")

    def _update(self, ops: Any, name: str, weight: Any, gradient: Any, rate: float,
                in_memory: tuple[Any, ...] | None) -> None:
        arrays = weight, self._slot(ops, f"{name}.velocity", weight), gradient
        settings = {"learning_rate": rate if in_memory is None else in_memory[0], "momentum": self.momentum,
                    "decay": self.decay if weight.ndim > 1 else 0.0, "rate_in_velocity": self.rate_in_velocity}
        if self.radius is not None and weight.ndim == 4:
            ops.sgd_filters(*arrays, radius=self.radius, **settings)
        else:
            ops.sgd_step(*arrays, **settings)


@dataclass
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), with bias correction.

    Parameters
    ----------
    learning_rate : step size
    beta1, beta2 : decay of the running mean and the running square of the gradient
    epsilon : added to the root
    decay : weight decay, added to the gradient of weights as decay * weight
    """

    slots: ClassVar[tuple[str, ...]] = ("first", "second")

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _number("Adam", name, value, 0, 1)
            checks.require(value < 1, "Adam", name, value, "a number from 0 to below 1")
        _number("Adam", "epsilon", self.epsilon, 0)
        _number("Adam", "decay", self.decay, 0)

    def numbers(self, factor: float) -> tuple[float, ...]:
        """The corrected learning rate, and the root that corrects the second moment."""
        step = self.steps + 1
        return self.learning_rate * factor / (1 - self.beta1**step), (1 - self.beta2**step) ** 0.5

    def _update(self, ops: Any, name: str, weight: Any, gradient: Any, rate: float,
                in_memory: tuple[Any, ...] | None) -> None:
        rate_and_step = (rate, self.steps) if in_memory is None else in_memory
        ops.adam_step(weight, self._slot(ops, f"{name}.first", weight),
                      self._slot(ops, f"{name}.second", weight), gradient, learning_rate=rate_and_step[0],
                      step=rate_and_step[1], beta1=self.beta1, beta2=self.beta2,
                      epsilon=self.epsilon, decay=self.decay if weight.ndim > 1 else 0.0)


KINDS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}


def optimizer_from_config(config: Mapping[str, Any]) -> Optimizer:
    """The optimizer that `Optimizer.to_config` or a recipe describes; ValueError for anything else.

    Parameters
    ----------
    config : {"kind": "sgd" or "adam", and any of its settings}
    """
    where = "optimizer"
    checks.require(isinstance(config, Mapping) and "kind" in config, where, "config", config, "a mapping with a kind")
    checks.one_of(where, "kind", config["kind"], KINDS)
    kind = KINDS[config["kind"]]
    known = {each.name for each in fields(kind) if each.init}
    unknown = sorted(set(config) - known - {"kind"})
    checks.require(not unknown, where, f"settings of {config['kind']}", unknown, ", ".join(sorted(known)))
    return kind(**{key: value for key, value in config.items() if key != "kind"})
