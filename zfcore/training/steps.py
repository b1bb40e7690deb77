"""One training step: a walk up, softmax cross-entropy, the walk down under the gradient rule, an update."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from .optimizers import Optimizer

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["NonFiniteLoss", "train_step"]

TRAINED = ("float32", "bfloat16")  # storages whose range holds a training's gradients


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; the step that showed it was not taken.

    Attributes
    ----------
    layer : the first layer, in the order of computation, with a value that is not finite
    step : the step at which it was seen, from 0
    """

    def __init__(self, layer: str, step: int) -> None:
        super().__init__(f"the loss is not finite at step {step}; the first values that are not finite come "
                         f"from {layer!r} (a smaller learning rate, or inputs of a smaller scale?)")
        self.layer, self.step = layer, step


def require_trainable(net: Network, where: str) -> None:
    """ValueError if a network's parameters may not change, or its tensors cannot hold a training's gradients."""
    net.require_thawed(where)
    allowed = " or ".join(map(repr, TRAINED))
    checks.require(net.storage in TRAINED, where, "storage", net.storage, f"{allowed}: gradients below float16's range "
                   "would vanish, as losses are not scaled; bfloat16 has float32's range")
    net.stored()


def first_bad_layer(net: Network, batch: Any, seed: int, step: int, frozen: Collection[str] = ()) -> str:
    """Name of the first layer with a parameter or an output that is not finite."""
    if not np.isfinite(net.ops.backend.to_numpy(batch)).all():
        return "input"
    nodes = net.below([net.logits])
    kept = net.forward(batch, keep=[node.name for node in nodes], to=net.logits, training=True, seed=seed,
                       step=step, frozen=frozen).kept
    for node in nodes:
        arrays = (*node.layer.parameters.values(), kept[node.name])
        if not all(np.isfinite(net.ops.backend.to_numpy(array)).all() for array in arrays):
            return node.name
    return nodes[-1].name


def train_step(net: Network, batch: Any, labels: np.ndarray, optimizer: Optimizer, *, seed: int = 0,
               step: int = 0, frozen: Collection[str] = (), keep: Collection[str] = (),
               walked: Callable[[Mapping[str, Any]], object] | None = None) -> tuple[float, int]:
    """Walk up, walk down, update the parameters once.

    Parameters
    ----------
    net : an initialised network
    batch : (N, H, W, C), preprocessed
    labels : integers (N,)
    optimizer : what moves the parameters, in place
    seed, step : of dropout: another step drops other units
    frozen : layers that keep their parameters and run as at inference
    keep, walked : tensors of the walk up, and who gets them, before the parameters move

    Returns
    -------
    loss : summed over the batch, before the step
    hits : right answers before the step
    """
    require_trainable(net, "train_step")
    ops = net.ops
    batch = ops.backend.asarray(batch)
    forward = net.forward(batch, keep=keep, to=net.logits, cache=True, training=True, seed=seed, step=step,
                          frozen=frozen, fused=True)
    if walked is not None:
        walked(forward.kept)
        forward.kept.clear()  # their memory is for the walk down
    targets = ops.backend.asarray(labels)
    losses, probabilities = ops.softmax_cross_entropy(forward.output, targets)
    loss = float(ops.backend.to_numpy(losses).sum(dtype=np.float64))
    if not np.isfinite(loss):
        raise NonFiniteLoss(first_bad_layer(net, batch, seed, step, frozen), step)
    signal = ops.softmax_cross_entropy_gradient(probabilities, targets)
    moving: Any = [name for name in forward.nodes if name not in frozen] if frozen else True
    gradients = net.backward(forward, signal, parameters=moving, inputs=False).gradients
    optimizer.step(ops, net.parameters(), gradients)
    return loss, int((ops.backend.to_numpy(probabilities).argmax(axis=1) == labels).sum())
