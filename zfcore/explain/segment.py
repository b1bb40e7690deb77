"""An object's outline without supervision: GrabCut, seeded by a saliency map."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks

__all__ = ["grabcut"]


def grabcut(pixels: np.ndarray, saliency: np.ndarray, *, foreground: float = 95.0, background: float = 30.0,
            smoothing: float = 1 / 32, iterations: int = 5, seed: int = 0) -> np.ndarray:
    """Cut objects out of photographs, starting from their saliency maps.

    Pixels whose saliency is above one percentile are taken for the object, those below another for
    background; colour models of both and a graph cut decide the others. Simonyan, Vedaldi & Zisserman
    (2013), section 3.2, with OpenCV's GrabCut (Rother et al. 2004).

    Parameters
    ----------
    pixels : uint8 (N, height, width, 1 or 3), RGB or gray
    saliency : float (N, height, width), none below zero
    foreground, background : percentiles of each image's saliency
    smoothing : standard deviation of the Gaussian that smooths the saliency, as a part of the longer
        side: strides and pools leave lattices in it, which are no objects
    iterations : of the cut
    seed : of the colour models' start

    Returns
    -------
    bool (N, height, width), True on the object

    Raises
    ------
    ImportError : OpenCV is not installed
    ValueError : shapes that do not fit, percentiles out of order, or a map that is the same everywhere
    """
    where = "grabcut"
    checks.require(0 <= background < foreground < 100, where, "(background, foreground)",
                   (background, foreground), "0 <= background < foreground < 100")
    checks.integer(where, "iterations", iterations, 1)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        checks.fail(where, "pixels", f"{pixels.dtype} {pixels.shape}", "uint8 (N, height, width, 1 or 3)")
    checks.shape(where, "saliency", saliency, pixels.shape[:3])
    checks.require(0 <= smoothing < 1, where, "smoothing", smoothing, "0 <= smoothing < 1")
    cv2 = _opencv()
    masks = np.zeros(saliency.shape, bool)
    for picture, values, mask in zip(pixels, saliency, masks, strict=True):
        if smoothing:
            values = cv2.GaussianBlur(values.astype(np.float32), (0, 0), smoothing * max(values.shape))
        low, high = np.percentile(values, (background, foreground))
        if not high > low:
            checks.fail(where, "saliency", "the same nearly everywhere", "a map with a peak")
        labels = np.full(values.shape, cv2.GC_PR_BGD, np.uint8)
        labels[values > low + (high - low) / 2] = cv2.GC_PR_FGD
        labels[values <= low] = cv2.GC_BGD
        labels[values >= high] = cv2.GC_FGD
        cv2.setRNGSeed(seed)
        colour = np.ascontiguousarray(picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture[..., ::-1])
        cv2.grabCut(colour, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)
        mask[:] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return masks


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("grabcut needs OpenCV: pip install opencv-python-headless") from error
    return cv2
