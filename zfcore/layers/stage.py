"""A convolution and the max pool above it as one layer, for walks that need nothing between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..geometry import output_size
from ..rules import GRADIENT, Rule
from .base import INFERENCE, Cache, Gradients, Layer, Run
from .pooling import MaxPool
from .weighted import Convolution


@dataclass
class _Stage(Layer):
    """Convolution, ReLU if it has one, max pool: up in one operation, down in another.

    The bits of the two layers: a value that reaches a cell is its window's maximum, so the pooled map knows
    whether the cell was above zero. The parameters are the convolution's, and `run.tile` is that of the maps between.
    Only gradients of filters make a map between, of the signal, for as long as they are computed.
    """

    shares: ClassVar[bool] = True
    short = True

    convolution: Convolution
    pool: MaxPool

    def __post_init__(self) -> None:
        self.parameters = self.convolution.parameters

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x, layer, pool = inputs[0], self.convolution, self.pool
        padding = (0, 0, 0, 0) if run.tile else layer._padding(x.shape[1:3])
        size = self._between(x.shape, padding)
        sizes: dict[str, Any] = {"stride": layer._stride, "padding": padding, "dilation": layer._dilation,
                                 "groups": layer.groups, "window": pool._window, "window_stride": pool._stride,
                                 "tile": run.tile, "window_padding": 0 if run.tile else pool._padding(size),
                                 "precision": run.precision}
        weight, bias = self.parameters["weight"], self.parameters.get("bias")
        y, switches = ops.convolution_pool(x, weight, bias, activation=layer.activation,
                                           ceil_mode=pool.ceil_mode and not run.tile, **sizes)
        return y, {"x": x if run.parameters else None, "y": y if layer.activation else None, "switches": switches,
                   "shape": x.shape, "between": size, "sizes": sizes}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        if not inputs and not parameters:
            return (None,), {}
        rectified = self.convolution.activation is not None
        if rectified and rule.relu != "deconvnet":
            dy = ops.relu_backward(dy, cache["y"], rule="gradient")
        rectify = rectified and rule.relu != "gradient"
        gradients = self._gradients(ops, dy, cache, rule, rectify) if parameters else {}
        if not inputs:
            return (None,), gradients
        signal = ops.unpool_filter(dy, cache["switches"], self.parameters["weight"], tuple(cache["shape"]),
                                   cache["between"], overlap=rule.overlap, rectify=rectify, **cache["sizes"])
        return (signal,), gradients

    def _gradients(self, ops: Any, dy: Any, cache: Cache, rule: Rule, rectify: bool) -> Gradients:
        """Of the parameters, from the signal at the pooled maps."""
        sizes, weight, pool = dict(cache["sizes"]), self.parameters["weight"], self.pool
        padding, tile = sizes.pop("window_padding"), sizes.pop("tile")
        del sizes["window"], sizes["window_stride"]
        maps = (cache["shape"][0], *cache["between"], self.convolution.filters)
        signal = ops.max_unpool(dy, cache["switches"], maps, window=pool._window, stride=pool._stride, padding=padding,
                                overlap=rule.overlap, trusted=True, tile=tile)
        if rectify:
            signal = ops.relu(signal)
        gradients = {"weight": ops.convolution_weight_gradient(signal, cache["x"], weight.shape, **sizes)}
        if self.convolution.bias:
            gradients["bias"] = ops.channel_sum(signal)
        return gradients

    def _between(self, shape: Sequence[int], padding: Sequence[int]) -> tuple[int, int]:
        """(P, Q) of the maps between."""
        layer = self.convolution
        rows, columns = (output_size(shape[1 + axis], layer._window[axis], layer._stride[axis], padding[2 * axis],
                                     padding[2 * axis + 1], layer._dilation[axis]) for axis in (0, 1))
        return rows, columns
