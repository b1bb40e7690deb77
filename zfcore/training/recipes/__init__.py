"""Recipes: how a network is trained, as data. Those of the papers are the .toml files beside this one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import checks, initializers
from ...data import Augmentation
from ...layers import Dropout
from ...network.storage import check_fit
from ..optimizers import Optimizer, optimizer_from_config
from ..schedules import Schedule, schedule_from_config
from ..steps import TRAINED

if TYPE_CHECKING:
    from ...network import Network

__all__ = ["NAMES", "Recipe", "recipe"]

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
TABLES = ("optimizer", "schedule", "network", "augmentation")
NETWORK = ("initial_weights", "shares", "dropout", "mean", "algorithm", "precision", "storage")
OPEN = "network"  # a size that the network decides


@dataclass(frozen=True)
class Recipe:
    """How to train: everything that is not the network or the data.

    Parameters
    ----------
    name, source : what it is called and where it is from
    epochs : passes over the training images
    batch_size : images a step
    optimizer : {"kind": "sgd" or "adam", and its settings}: `SGD`, `Adam`
    schedule : {"kind": "constant", "by-hand", "step", "plateau", "linear" or "cosine", and its settings}
    network : initial_weights (one of `initializers.SCHEMES`; left out: the network's own), shares ({layer:
        factor} of its initial weights), dropout (rate of every dropout layer), mean ("pixel" or
        "channel": of the training images), algorithm ("auto" or "direct"), storage ("float32", or where there is a GPU
        "bfloat16") and precision ("float32", or there "tf32", "tf32x3", "float16" or "bfloat16"; left out: the
        storage's), all of which may be left out
    augmentation : of `data.Augmentation`; size and crop may be "network": what its preprocessing
        resizes to, and its input's size
    """

    name: str = "custom"
    source: str = ""
    epochs: int = 10
    batch_size: int = 128
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"kind": "sgd"})
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"kind": "constant"})
    network: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = "recipe"
        for name in ("name", "source"):
            if not isinstance(getattr(self, name), str):
                checks.fail(where, name, getattr(self, name), "a text", TypeError)
        checks.integer(where, "epochs", self.epochs, 1)
        checks.integer(where, "batch_size", self.batch_size, 1)
        for table in TABLES:
            if not isinstance(getattr(self, table), Mapping):
                checks.fail(where, table, getattr(self, table), "a table", TypeError)
        self.make_optimizer()
        self.make_schedule()
        known = self.network
        unknown = sorted(set(known) - set(NETWORK))
        checks.require(not unknown, where, "settings of network", unknown, ", ".join(NETWORK))
        for name, allowed in (("initial_weights", initializers.SCHEMES), ("mean", ("pixel", "channel")),
                              ("algorithm", ("auto", "direct")), ("precision", checks.PRECISIONS),
                              ("storage", TRAINED)):
            if name in known:
                checks.one_of(where, f"network.{name}", known[name], allowed)
        check_fit(f"{where}: network", known.get("storage", "float32"), known.get("precision"))
        if "dropout" in known:
            Dropout(known["dropout"])
        shares = known.get("shares", {})
        checks.require(isinstance(shares, Mapping) and all(
            isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < float("inf")
            for each in shares.values()), where, "network.shares", shares, "{layer: a number}")
        fixed = {key: value for key, value in self.augmentation.items() if value != OPEN}
        if len(fixed) < len(self.augmentation) and self.augmentation.get("views") == "ten":
            fixed.setdefault("crop", 1)
        Augmentation.from_config(fixed)

    def to_config(self) -> dict[str, Any]:
        """JSON values; `Recipe(**config)` reads them."""
        return {"name": self.name, "source": self.source, "epochs": self.epochs, "batch_size": self.batch_size,
                **{table: dict(getattr(self, table)) for table in TABLES}}

    def changed(self, **values: Any) -> Recipe:
        """The recipe with some values replaced; "optimizer.learning_rate" is one in a table.

        None takes a value away, so that it has its default.
        """
        tables = {table: dict(getattr(self, table)) for table in TABLES}
        top: dict[str, Any] = {}
        for key, value in values.items():
            table, dot, name = key.partition(".")
            if dot and table in tables:
                if value is None:
                    tables[table].pop(name, None)
                else:
                    tables[table][name] = value
            elif not dot and key in (*TABLES, "name", "source", "epochs", "batch_size"):
                top[key] = value
            else:
                checks.fail("recipe", "a setting's name", key, "epochs, batch_size, or a table's setting as in "
                            "optimizer.learning_rate (tables: " + ", ".join(TABLES) + ")")
            if key.endswith(".kind"):  # another kind has other settings
                tables[table] = {"kind": value, **{each.partition(".")[2]: new for each, new in values.items()
                                                   if each.startswith(f"{table}.") and each != key}}
                if table == "optimizer" and "learning_rate" in self.optimizer:
                    tables[table].setdefault("learning_rate", self.optimizer["learning_rate"])
        return replace(self, **{**tables, **top})

    def make_optimizer(self, factors: Mapping[str, float] | None = None) -> Optimizer:
        """A new optimizer.

        Parameters
        ----------
        factors : of the learning rate, by layer; None: the recipe's
        """
        given = {} if factors is None else {"factors": dict(factors)}
        return optimizer_from_config({**self.optimizer, **given})

    def make_schedule(self) -> Schedule:
        """The schedule of learning rates."""
        return schedule_from_config(self.schedule)

    def make_augmentation(self, network: Network) -> Augmentation:
        """What happens to a picture before it is shown to this network."""
        found = dict(self.augmentation)
        if found.get("size") == OPEN:
            size = None if network.preprocessing is None else network.preprocessing.size
            found["size"] = size if isinstance(size, int) else None
        if found.get("crop") == OPEN:
            found["crop"] = tuple(network.input_shape[:2])
        return Augmentation.from_config(found)

    def prepare(self, network: Network) -> None:
        """Set what the recipe says of the network itself: dropout, algorithm, storage and precision."""
        if "dropout" in self.network:
            for node in network.nodes.values():
                if isinstance(node.layer, Dropout):
                    node.layer.rate = self.network["dropout"]
        network.algorithm = self.network.get("algorithm", network.algorithm)
        if "storage" in self.network:
            network.storage, network.precision = self.network["storage"], None
        if "precision" in self.network:
            network.precision = self.network["precision"]

    def initialize(self, network: Network, seed: int) -> None:
        """Give the network its initial weights.

        Parameters
        ----------
        network : changed
        seed : of the random numbers
        """
        network.initialize(seed, self.network.get("initial_weights"))
        for layer, share in self.network.get("shares", {}).items():
            checks.one_of("recipe", "a layer of network.shares", layer,
                          [node.name for node in network.nodes.values() if "weight" in node.layer.parameters])
            network.nodes[layer].layer.parameters["weight"] *= np.float32(share)


def recipe(name: str) -> Recipe:
    """A recipe by its name, or from a .toml file.

    Parameters
    ----------
    name : one of `NAMES`, or a path that ends in .toml

    Raises
    ------
    FileNotFoundError : no such file
    ValueError : no such name, or a file that holds no recipe; the message begins with its path
    """
    path = FOLDER / f"{name}.toml" if name in NAMES else Path(name)
    if name not in NAMES:
        if path.suffix.lower() != ".toml":
            checks.fail("recipe", "name", name, f"{', '.join(NAMES)}, or a file that ends in .toml")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    try:
        read = tomllib.loads(path.read_text("utf-8"))
        unknown = sorted(set(read) - {"name", "source", "epochs", "batch_size", *TABLES})
        checks.require(not unknown, "recipe", "settings", unknown,
                       "name, source, epochs, batch_size, " + ", ".join(TABLES))
        return Recipe(**{"name": path.stem, **read})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
