"""What a unit's optimal stimulus may change without the unit minding: the Hessian on the sphere around zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..network import Network, unchanging
from .ascent import read_targets
from .progress import bar
from .result import Result
from .targets import pull

__all__ = ["Invariances", "hessian_vector", "invariances"]


@dataclass
class Invariances(Result):
    """Directions at a stimulus, with the score's curvature along them.

    Attributes
    ----------
    stimulus : (height, width, channels), where the Hessian was taken
    curvatures : (2 k,), falling: the k largest (the unit minds least, or likes it), then the k smallest
        (it minds most); second derivatives along great circles, per squared radian
    directions : (2 k, height, width, channels), of length 1, tangent to the sphere
    angles : (m,) radians
    curves : (2 k, m) the score along each great circle
    target : what was scored
    settings : of the method
    """

    kind: ClassVar[str] = "invariances"

    stimulus: np.ndarray
    curvatures: np.ndarray
    directions: np.ndarray
    angles: np.ndarray
    curves: np.ndarray
    target: str
    settings: dict[str, Any] = field(default_factory=dict)


def hessian_vector(network: Network, x: np.ndarray, target: Any, v: np.ndarray, step: float) -> np.ndarray:
    """H v of the target's score by central differences of the gradient: (g(x + h v) - g(x - h v)) / (2 h).

    Parameters
    ----------
    network : with parameters
    x, v : (height, width, channels)
    target : one class or unit
    step : h |v|, the length in the network's numbers. ReLUs and max pools are straight between their kinks: a
        longer step sees the curvature that the kinks make together

    Returns
    -------
    (height, width, channels), zero for v = 0
    """
    length = float(np.linalg.norm(v))
    if length == 0:
        return np.zeros_like(x)
    targets = read_targets(network, [target] * 2)
    h = x.dtype.type(step / length)
    slopes = pull(network, np.stack([x + h * v, x - h * v]), targets)[1]
    return (slopes[0] - slopes[1]) / (2 * h)


@unchanging
def invariances(network: Network, x: np.ndarray, target: Any, *, count: int = 3, step: float = 0.1,
                reach: float = 1.0, points: int = 21, tolerance: float = 1e-2, seed: int = 0,
                progress: bool = False) -> Invariances:
    """The leading and trailing directions of a score's Hessian at its optimal stimulus.

    On the sphere |x| = const, with x the optimum, the second derivative along a unit tangent v is
    |x|^2 v'Hv - x'g (g the gradient). Its eigenvectors come from Lanczos iterations (SciPy) on Hessian-vector
    products, so that H is never formed. Berkes & Wiskott, *On the Analysis and Interpretation of Inhomogeneous
    Quadratic Forms* (2006); Le et al., *Tiled Convolutional Neural Networks* (2010) look at units so.

    Parameters
    ----------
    network : with parameters
    x : the stimulus (height, width, channels) or a batch of one, such as one that `ascent` made
    target : one class or unit
    count : k, how many directions at each end
    step : of the differences, as an angle in radians (see `hessian_vector`)
    reach, points : the curves cover -reach to reach radians, in so many points
    tolerance : of Lanczos
    seed : of Lanczos's start
    progress : show on stderr how many products with the Hessian were taken

    Returns
    -------
    Invariances

    Raises
    ------
    ValueError : a stimulus of zeros, or counts that do not fit its size
    """
    where = "invariances"
    checks.floats(where, "x", x)
    image = x[0] if x.ndim == 4 and len(x) == 1 else x
    network._check_input(image[None] if image.ndim == 3 else image)
    for name, value, least in (("count", count, 1), ("points", points, 3), ("seed", seed, 0)):
        checks.integer(where, name, value, least)
    for name, number in (("step", step), ("reach", reach), ("tolerance", tolerance)):
        checks.require(np.isfinite(number) and number > 0, where, name, number, "a finite number above 0")
    checks.require(2 * count < image.size - 1, where, "count", count, f"less than half of {image.size} numbers")
    radius = float(np.linalg.norm(image))
    checks.require(radius > 0, where, "x", "all zero", "a stimulus with a direction")
    with bar(None, "products with the Hessian", progress) as shown:
        curvatures, directions = _ends(network, image, target, count, step * radius, tolerance, seed, shown)
    angles = np.linspace(-reach, reach, points)
    targets = read_targets(network, target)
    curves = np.stack([_curve(network, image, targets, direction, angles, radius) for direction in directions])
    settings = {"count": count, "step": step, "reach": reach, "points": points, "tolerance": tolerance, "seed": seed}
    return Invariances(image, curvatures, directions, angles, curves, targets.names()[0], settings)


def _ends(network: Network, image: np.ndarray, target: Any, count: int, step: float, tolerance: float, seed: int,
          shown: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the spectrum of the Hessian on the sphere, and its eigenvectors, largest first."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    normal = image.ravel().astype(np.float64)
    radius = np.linalg.norm(normal)
    normal /= radius
    slope = pull(network, image[None], read_targets(network, target))[1][0].ravel().astype(np.float64)
    along = float(slope @ normal) * radius

    def tangent(vector: np.ndarray) -> np.ndarray:
        return vector - normal * (normal @ vector)

    def product(vector: np.ndarray) -> np.ndarray:
        shown.update()
        flat = tangent(np.asarray(vector, np.float64).ravel())
        bent = hessian_vector(network, image, target, flat.reshape(image.shape).astype(image.dtype), step)
        return radius**2 * tangent(bent.ravel().astype(np.float64)) - along * flat

    operator = LinearOperator((image.size, image.size), matvec=product, dtype=np.float64)
    start = tangent(np.random.default_rng(seed).standard_normal(image.size))
    found = [eigsh(operator, count, which=which, v0=start, tol=tolerance) for which in ("LA", "SA")]
    values = np.concatenate([values for values, _ in found])
    vectors = np.concatenate([vectors.T for _, vectors in found])
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[order].reshape(-1, *image.shape).astype(image.dtype)


def _curve(network: Network, image: np.ndarray, targets: Any, direction: np.ndarray, angles: np.ndarray,
           radius: float) -> np.ndarray:
    """The score along the great circle from the stimulus towards a direction."""
    scores = []
    for angle in angles:
        point = np.cos(angle) * image + np.sin(angle) * radius * direction
        output = network.forward(point[None].astype(image.dtype), to=targets.tensor).output
        scores.append(float(targets.scores(output)[0]))
    return np.array(scores)
