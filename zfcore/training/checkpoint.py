"""A training's state on disk: two generations, each written completely or not at all, with a checksum.

A checkpoint is a safetensors file: the parameters, the optimizer's arrays, and as texts the network's
description, where the training is, and a SHA-256 over all of it. The generations are written in turn,
so that whatever happens to one while it is written, the other is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..formats import safetensors
from .loop import Training

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["Checkpoint", "CheckpointError", "Generations", "differences"]

FORMAT = "zfcore-checkpoint"
PARAMETER, OPTIMIZER = "parameter.", "optimizer."
NAMES = ("checkpoint-0.safetensors", "checkpoint-1.safetensors")
MAX_BYTES = 1 << 40
COUNTERS = ("epoch", "step", "loss", "hits", "seen", "seconds", "errors", "rates")


class CheckpointError(ValueError):
    """No whole checkpoint, or one of another network or training; the message begins with its path."""


def differences(found: Any, wanted: Any, where: str = "") -> list[str]:
    """What two JSON values differ in, a line each: "conv1.filters is 64, not 96".

    Parameters
    ----------
    found, wanted : what is there, and what should be
    where : the name of the whole
    """
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        lines = []
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            name = f"{where}.{key}" if where else str(key)
            if key not in found:
                lines.append(f"{name} is missing")
            elif key not in wanted:
                lines.append(f"{name} is too many")
            else:
                lines += differences(found[key], wanted[key], name)
        return lines
    return [] if found == wanted else [f"{where} is {json.dumps(found)}, not {json.dumps(wanted)}"]


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A network's description with its layers by name; what a layer reads counts, its place does not."""
    layers = {entry["name"]: {key: value for key, value in entry.items() if key != "name"}
              for entry in config["layers"]}
    return {**{key: value for key, value in config.items() if key != "layers"}, **layers}


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to go on.

    Attributes
    ----------
    network : its description, `Network.to_config`
    parameters, slots : arrays of the network and of the optimizer, by name
    state : JSON values: the training's counters, and whatever the run adds
    """

    network: dict[str, Any]
    parameters: dict[str, np.ndarray]
    slots: dict[str, np.ndarray]
    state: dict[str, Any]

    @property
    def place(self) -> tuple[int, int]:
        """(finished epochs, steps in the one under way)."""
        return self.state["epoch"], self.state["step"]

    @classmethod
    def of(cls, training: Training, more: Mapping[str, Any]) -> Checkpoint:
        """The state of a training now; arrays are not copied.

        Parameters
        ----------
        training : between two steps
        more : JSON values to keep beside its counters
        """
        net, optimizer = training.network, training.optimizer
        to_numpy = net.ops.backend.to_numpy
        state = {name: getattr(training, name) for name in COUNTERS}
        state |= {"optimizer_steps": optimizer.steps, "learning_rate": optimizer.learning_rate, **more}
        return cls(json.loads(json.dumps(net.to_config())),
                   {name: to_numpy(array) for name, array in net.parameters().items()},
                   {name: to_numpy(array) for name, array in optimizer.state.items()}, state)

    def first_not_finite(self) -> str | None:
        """Name of the first layer with a parameter or an optimizer's array that is not finite."""
        for name, array in self.parameters.items():
            layer = name.rpartition(".")[0]
            own = [slot for key, slot in self.slots.items() if key.startswith(f"{name}.")]
            if not all(np.isfinite(each).all() for each in (array, *own)):
                return layer
        return None

    def restore(self, training: Training) -> None:
        """Put a training where this one was; CheckpointError, with the differences, for another network.

        Parameters
        ----------
        training : changed, or left as it is if the checkpoint does not fit
        """
        net, optimizer = training.network, training.optimizer
        fit_to(self.network, net)
        expected = net.parameter_shapes()
        shapes = {name: tuple(array.shape) for name, array in self.parameters.items()}
        strange = [name for name, array in self.slots.items() if not any(
            name.startswith(f"{each}.") and tuple(array.shape) == shape for each, shape in expected.items())]
        if shapes != expected or strange:
            raise CheckpointError(f"its arrays are not the network's: {', '.join(strange) or 'parameters differ'}")
        asarray = net.ops.backend.asarray
        for node in net.nodes.values():
            node.layer.parameters = {key: asarray(self.parameters[f"{node.name}.{key}"])
                                     for key in net._parameter_shapes(node)}
        optimizer.state = {name: asarray(array) for name, array in self.slots.items()}
        optimizer.steps, optimizer.learning_rate = self.state["optimizer_steps"], self.state["learning_rate"]
        for name in COUNTERS:
            setattr(training, name, self.state[name])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it completely or not at all.

        Parameters
        ----------
        path : replaced at the very end
        """
        tensors = {**{PARAMETER + name: array for name, array in self.parameters.items()},
                   **{OPTIMIZER + name: array for name, array in self.slots.items()}}
        texts = {"format": FORMAT, "version": __version__, "network": json.dumps(self.network),
                 "state": json.dumps(self.state, allow_nan=False)}
        safetensors.write(path, tensors, {**texts, "checksum": _checksum(tensors, texts)})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read one; FileNotFoundError, or CheckpointError if it is damaged or something else.

        Parameters
        ----------
        path : what `write` wrote
        """
        try:
            tensors, texts = safetensors.read(path, MAX_BYTES)
        except FileNotFoundError:
            raise
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{path}: damaged ({error})") from error
        if texts.get("format") != FORMAT:
            raise CheckpointError(f"{path}: no checkpoint that zfcore wrote, or a damaged one")
        claimed = texts.pop("checksum", None)
        if claimed != _checksum(tensors, texts):
            raise CheckpointError(f"{path}: damaged (its checksum does not fit)")
        parameters, slots = ({key.removeprefix(prefix): array for key, array in tensors.items()
                              if key.startswith(prefix)} for prefix in (PARAMETER, OPTIMIZER))
        return cls(json.loads(texts["network"]), parameters, slots, json.loads(texts["state"]))


def fit_to(config: Mapping[str, Any], net: Network) -> None:
    """CheckpointError that lists the differences if a description is not this network's."""
    wanted = json.loads(json.dumps(net.to_config()))
    lines = differences(_comparable(config), _comparable(wanted))
    order = [[entry["name"] for entry in each["layers"]] for each in (config, wanted)]
    if not lines and order[0] != order[1]:
        lines = ["its layers stand in another order"]
    if lines:
        shown = "; ".join(lines[:12]) + (f"; and {len(lines) - 12} more" if len(lines) > 12 else "")
        raise CheckpointError(f"is of another network: {shown}")


def _checksum(tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    described = [[name, str(array.dtype), list(array.shape)] for name, array in tensors.items()]
    digest = hashlib.sha256(json.dumps([described, sorted(texts.items())]).encode())
    for array in tensors.values():
        if array.nbytes:
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class Generations:
    """The two checkpoints in a folder.

    Parameters
    ----------
    folder : where they lie
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._next = NAMES[0]
        self.saved: tuple[int, int] | None = None

    def load(self) -> tuple[Checkpoint | None, list[str]]:
        """The checkpoint that reaches furthest, and what is wrong with the other, if something is.

        Raises
        ------
        CheckpointError : there are checkpoints, but no whole one
        """
        found: dict[str, Checkpoint] = {}
        faults: list[str] = []
        for name in NAMES:
            try:
                found[name] = Checkpoint.read(self.folder / name)
            except FileNotFoundError:
                pass
            except CheckpointError as error:
                faults.append(str(error))
        if not found:
            if faults:
                raise CheckpointError("; ".join(faults))
            return None, []
        name = max(found, key=lambda each: found[each].place)
        self._next = NAMES[1 - NAMES.index(name)]
        self.saved = found[name].place
        return found[name], faults

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint over the one before the last.

        Parameters
        ----------
        checkpoint : the state now
        """
        checkpoint.write(self.folder / self._next)
        self._next = NAMES[1 - NAMES.index(self._next)]
        self.saved = checkpoint.place
