"""Penalties on an image, each with its gradient: what keeps synthesised images like images.

Values are sums over one image, so that a row of a batch does not depend on the others.
"""

from __future__ import annotations

import numpy as np

__all__ = ["l1", "l2", "total_variation"]


def l1(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of |x|, and its gradient sign(x).

    Parameters
    ----------
    x : images (N, height, width, channels)

    Returns
    -------
    values (N,) and a gradient of x's shape
    """
    return np.abs(x).sum(axis=(1, 2, 3)), np.sign(x)


def l2(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half the sum of x ** 2, and its gradient x.

    Parameters
    ----------
    x : images (N, height, width, channels)

    Returns
    -------
    values (N,) and a gradient of x's shape
    """
    return np.square(x).sum(axis=(1, 2, 3)) / 2, x


def total_variation(x: np.ndarray, beta: float = 2.0, smallest: float = 1e-6) -> tuple[np.ndarray, np.ndarray]:
    """R_beta = sum of ((x[i, j+1] - x[i, j]) ** 2 + (x[i+1, j] - x[i, j]) ** 2) ** (beta / 2), and its gradient.

    Differences beyond the border are zero; colours are summed. Mahendran & Vedaldi, *Understanding Deep Image
    Representations by Inverting Them* (2015), section 2.2.

    Parameters
    ----------
    x : images (N, height, width, channels)
    beta : 2 is smooth; 1 is total variation, which keeps edges and is not differentiable at 0
    smallest : added to the squares where beta < 2, so that the gradient stays finite

    Returns
    -------
    values (N,) and a gradient of x's shape
    """
    right, down = np.zeros_like(x), np.zeros_like(x)
    right[:, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    down[:, :-1] = x[:, 1:] - x[:, :-1]
    squares = right * right + down * down
    if beta < 2:
        squares += x.dtype.type(smallest)
    values = np.power(squares, beta / 2)
    slope = x.dtype.type(beta) * (np.power(squares, beta / 2 - 1) if beta != 2 else np.ones_like(squares))
    right *= slope
    down *= slope
    gradient = -(right + down)
    gradient[:, :, 1:] += right[:, :, :-1]
    gradient[:, 1:] += down[:, :-1]
    return values.sum(axis=(1, 2, 3)), gradient
