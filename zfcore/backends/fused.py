"""Launchers that compiled backends have besides Numba's: fused chains, captured steps' updates, 16 bits.

Each has the bits of the launchers that it stands for; whoever asks for one looks first whether the backend has it.
`bounds` are those of the maps between, as for max_pool, (N, 4) on the host; None: whole maps.
"""

from __future__ import annotations

from typing import Any

from .. import checks


class Fused:
    """The methods; `_run` calls the extension."""

    _run: Any
    _bounds: Any

    def _inside(self, bounds: Any, size: Any) -> Any:
        """The bounds of maps of `size` as the kernels take them."""
        return None if bounds is None else self._bounds(bounds, (0, *size))

    def convolution_pool(self, y: Any, switches: Any, x: Any, weight: Any, bias: Any, bounds: Any, size: Any,
                         stride: Any, padding: Any, dilation: Any, groups: int, relu: bool, window: Any,
                         window_stride: Any, before: Any, precision: str = "float32") -> None:
        """Fill y and switches (N, P', Q', K): convolution_forward, whose maps are `size` = (P, Q), then max_pool.

        Windows of at most 64 cells.
        """
        self._run("convolution_pool", y, switches, x, weight, bias, self._inside(bounds, size), size, stride, padding,
                  dilation, groups, relu, window, window_stride, before, number(precision))

    def unpool_filter(self, dx: Any, y: Any, switches: Any, weight: Any, bounds: Any, window: Any, window_stride: Any,
                      before: Any, last_wins: bool, rectify: bool, size: Any, stride: Any, padding: Any, dilation: Any,
                      groups: int, precision: str = "float32") -> None:
        """Fill dx: max_unpool into maps of `size` = (P, Q), relu if asked, convolution_input_gradient."""
        self._run("unpool_filter", dx, y, switches, weight, self._inside(bounds, size), window, window_stride, before,
                  last_wins, rectify, size, stride, padding, dilation, groups, number(precision))

    def sgd_filters(self, weight: Any, velocity: Any, copy: Any, gradient: Any, learning_rate: Any, momentum: float,
                    decay: float, rate_in_velocity: bool, radius: float) -> None:
        """Change weight and velocity: sgd_step, then renormalize_filters, in one pass over memory.

        `copy`, unless None, receives the weights too, in their type or of 16 bits. `learning_rate` may be a float64
        array (1,) of the backend, which is read when the kernel runs.
        """
        self._run("sgd_filters", weight, velocity, copy, gradient, learning_rate, momentum, decay, rate_in_velocity,
                  radius)

    def adam_step_in_memory(self, weight: Any, first: Any, second: Any, gradient: Any, rate: Any, root: Any,
                            beta1: float, beta2: float, epsilon: float, decay: float) -> None:
        """adam_step whose rate, learning_rate / (1 - beta1^step), and root, sqrt(1 - beta2^step), lie in memory."""
        self._run("adam_step", weight, first, second, gradient, rate, beta1, beta2, 1 - beta1, 1 - beta2, root, epsilon,
                  decay)

    def guard_settings(self, guarded: Any, settings: Any, losses: Any) -> None:
        """Fill guarded with settings, both float64, or with NaN if a loss is not finite: then no step is taken."""
        self._run("guard_settings", guarded, settings, losses)

    def pad_channels(self, y: Any, x: Any) -> None:
        """Fill y (rows, wide) with x (rows, channels), then zeros."""
        self._run("pad_channels", y, x)

    def convert(self, y: Any, x: Any) -> None:
        """Fill y with x: one of float32, the other float16 or the bits of bfloat16 (uint16)."""
        self._run("convert", y, x)


def number(precision: str) -> int:
    """A precision as ops.h counts them."""
    return checks.PRECISIONS.index(precision)
