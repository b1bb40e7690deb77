"""Steps uphill: plain, of constant length, Adam; and how large an image's numbers are."""

from __future__ import annotations

import numpy as np

from ..network import Network

STEPS = ("plain", "normalized", "adam")


def amplitude(network: Network) -> float:
    """About one standard deviation of a natural image in the network's numbers: 64 gray levels; 1 if unknown."""
    if network.preprocessing is None:
        return 1.0
    return float(64 * np.abs(network.preprocessing.scale).mean())


class Climber:
    """Changes images in place along gradients; every row by itself.

    Parameters
    ----------
    kind : "adam" (Kingma & Ba 2014), or x += rate * g: who wants normalised steps hands over normalised g
    rate : the step
    """

    def __init__(self, kind: str, rate: float) -> None:
        self.kind, self.rate, self.count = kind, rate, 0
        self.first: np.ndarray | None = None
        self.second: np.ndarray | None = None

    def step(self, x: np.ndarray, gradient: np.ndarray) -> None:
        """Take one step uphill."""
        rate = x.dtype.type(self.rate)
        if self.kind == "adam":
            self._adam(x, gradient, rate)
        else:
            x += rate * gradient

    def _adam(self, x: np.ndarray, gradient: np.ndarray, rate: np.floating) -> None:
        if self.first is None or self.second is None:
            self.first, self.second = np.zeros_like(x), np.zeros_like(x)
        self.count += 1
        self.first += x.dtype.type(0.1) * (gradient - self.first)
        self.second += x.dtype.type(0.001) * (gradient * gradient - self.second)
        first = self.first / x.dtype.type(1 - 0.9**self.count)
        second = self.second / x.dtype.type(1 - 0.999**self.count)
        x += rate * first / (np.sqrt(second) + x.dtype.type(1e-12))
