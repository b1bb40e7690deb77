"""Normalisations: across maps, of local contrast, and over the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .. import checks
from ..geometry import Window
from ..rules import GRADIENT, Rule, only_gradient
from .base import INFERENCE, Cache, Gradients, Layer, Run, Shape


def _constants(layer: Any) -> dict[str, Any]:
    where = type(layer).__name__
    checks.integer(where, "size", layer.size, 1, checks.LONGEST)
    for name in ("alpha", "beta", "k"):
        value = getattr(layer, name)
        valid = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
        checks.require(valid, where, name, value, "a finite number >= 0")
    return {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "k": layer.k}


@dataclass
class ResponseNorm(Layer):
    """Response normalisation across maps (Krizhevsky et al. 2012, section 3.3).

    y_f = x_f * D_f ** -beta, D_f = k + a * sum of x_j ** 2 over the `size` maps around f.

    Parameters
    ----------
    alpha_is_divided_by_size : False: a = alpha, the papers' formula; True: a = alpha / size, as in
        Caffe, torch and ONNX
    mirrored : for even sizes: False: one map more before f than after it, as in cuda-convnet and torch;
        True: one more after it, as in cuDNN and ONNX
    """

    shares: ClassVar[bool] = True

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    alpha_is_divided_by_size: bool = False
    mirrored: bool = False

    def __post_init__(self) -> None:
        self._options = {**_constants(self), "alpha_is_divided_by_size": bool(self.alpha_is_divided_by_size)}
        self._reversed = bool(self.mirrored and self.size % 2 == 0)
        self.short = not self._reversed  # reversing is done by the arrays' library

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = self._map_shape(shapes[0])[2]
        if self.size > channels:
            self._fail("size", self.size, f"at most the {channels} maps of the input")
        return shapes[0]

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        y = ops.response_norm(self._turned(ops, inputs[0]), **self._options)
        return self._turned(ops, y), {"x": inputs[0]}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        if not inputs:
            return (None,), {}
        if rule.normalization == "identity":
            return (dy,), {}
        dx = ops.response_norm_gradient(self._turned(ops, dy), self._turned(ops, cache["x"]), **self._options)
        return (self._turned(ops, dx),), {}

    def _turned(self, ops: Any, x: Any) -> Any:
        """The maps in reverse where the window is the mirror image."""
        return ops.backend.asarray(x[..., ::-1]) if self._reversed else x


@dataclass
class ContrastNorm(Layer):
    """Local contrast normalisation in space, each map by itself.

    d = u - local mean, D = k + a * sum of d ** 2 over the window; y = u * D ** -beta
    ("divisive") or d * D ** -beta ("subtractive", Jarrett et al. 2009).

    Parameters
    ----------
    size : side of the square window
    alpha_is_divided_by_area : whether a = alpha / size ** 2, as in cuda-convnet's configuration
    mean_is_constant : cuda-convnet's approximate gradient, which holds the mean fixed
    """

    size: int = 9
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    alpha_is_divided_by_area: bool = True
    mode: str = "divisive"
    mean_is_constant: bool = False

    def __post_init__(self) -> None:
        checks.one_of("ContrastNorm", "mode", self.mode, ("divisive", "subtractive"))
        self._options = {**_constants(self), "mode": self.mode,
                         "alpha_is_divided_by_area": bool(self.alpha_is_divided_by_area)}
        # The sum's window around the mean's window: output cell p depends on twice the reach.
        self._before, self._after = 2 * (self.size // 2), 2 * (self.size - 1 - self.size // 2)

    def output_shape(self, *shapes: Shape) -> Shape:
        return self._map_shape(shapes[0])

    def geometry(self, shape: Shape) -> Window | None:
        span = self._before + self._after + 1
        return Window((1, 1), (self._before, self._before), (span, span))

    def _inner(self, x: Any) -> tuple[slice, slice, slice]:
        """The cells of a crop whose output does not miss anything."""
        return (slice(None), slice(self._before, x.shape[1] - self._after),
                slice(self._before, x.shape[2] - self._after))

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        if run.tile is None:
            return ops.contrast_norm(x, **self._options), {"x": x, "tile": None}
        y = ops.contrast_norm(x, tile=run.tile, **self._options)[self._inner(x)]
        return ops.backend.asarray(y), {"x": x, "tile": run.tile}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        if not inputs:
            return (None,), {}
        x, tile = cache["x"], cache["tile"]
        if tile is not None:
            signal = ops.backend.zeros(tuple(x.shape), dy.dtype)
            signal[self._inner(x)] = dy
            dy = signal
        if rule.normalization == "identity":
            return (dy,), {}
        options = {**self._options, "mean_is_constant": self.mean_is_constant}
        return (ops.contrast_norm_gradient(dy, x, **options, **({"tile": tile} if tile else {})),), {}


@dataclass
class BatchNorm(Layer):
    """Batch normalisation over all axes but the channels'.

    At inference it is linear, so every rule multiplies by scale / sqrt(variance + epsilon). In
    training it uses the batch's statistics and moves its own: mean = momentum * mean +
    (1 - momentum) * batch mean.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    trainable: ClassVar[tuple[str, ...]] = ("scale", "bias")

    def __post_init__(self) -> None:
        checks.require(isinstance(self.epsilon, float) and 0 < self.epsilon < 1, "BatchNorm", "epsilon",
                       self.epsilon, "a number between 0 and 1")
        checks.require(0 <= self.momentum < 1, "BatchNorm", "momentum", self.momentum, "a number in [0, 1)")

    def parameter_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        return dict.fromkeys(("scale", "bias", "mean", "variance"), (shapes[0][-1],))

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x, values = inputs[0], self.parameters
        if not run.training:
            y = ops.batch_norm(x, values["scale"], values["bias"], values["mean"], values["variance"],
                               epsilon=self.epsilon)
            return y, {"x": x if run.parameters else None, "batch": None}
        y, mean, variance = ops.batch_norm_training(x, values["scale"], values["bias"], epsilon=self.epsilon)
        count = x.size // x.shape[-1]
        unbiased = variance * (count / max(count - 1, 1))
        for name, batch in (("mean", mean), ("variance", unbiased)):
            moved = self.momentum * values[name] + (1 - self.momentum) * batch
            values[name][...] = moved.astype(values[name].dtype)  # in place, as weights move
        return y, {"x": x, "batch": (mean, variance)}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        values, x, options = self.parameters, cache["x"], {"epsilon": self.epsilon}
        if cache["batch"] is not None:
            only_gradient(rule, self, "the forward pass was a training pass, where it is not linear")
            dx, scale, bias = ops.batch_norm_training_gradient(dy, x, *cache["batch"], values["scale"], trusted=True,
                                                             **options)
            return (dx if inputs else None,), {"scale": scale, "bias": bias} if parameters else {}
        gradients: Gradients = {}
        if parameters:
            scale, bias = ops.batch_norm_parameter_gradients(dy, x, values["mean"], values["variance"], **options)
            gradients = {"scale": scale, "bias": bias}
        if not inputs:
            return (None,), gradients
        return (ops.batch_norm_gradient(dy, values["scale"], values["variance"], **options),), gradients
