"""What a module does to an example: a graph of calls, with shapes, shared memory and in-place writes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside the block; every submodule's mode is put back."""
    modes = [(item, item.training) for item in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for item, mode in modes:
            item.training = mode


@dataclass
class Trace:
    """A followed module.

    Attributes
    ----------
    graph : its calls
    values : what each gave for the example: a tensor (its contents may be overwritten) or anything
    storage : which memory each tensor lies in
    writes : calls that change a tensor in place, and the memory that they change
    """

    graph: fx.GraphModule
    values: dict[fx.Node, Any] = field(default_factory=dict)
    storage: dict[fx.Node, int] = field(default_factory=dict)
    writes: dict[fx.Node, set[int]] = field(default_factory=dict)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps every result, so that no memory is used twice."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.trace = Trace(graph)

    def run_node(self, n: fx.Node) -> Any:
        inputs = [self.env[item] for item in n.all_input_nodes]
        tensors = [(item, item._version) for item in inputs if isinstance(item, torch.Tensor)]
        result = super().run_node(n)
        written = {_memory(item) for item, version in tensors if item._version != version}
        if written:
            self.trace.writes[n] = written
        self.trace.values[n] = result
        if isinstance(result, torch.Tensor) and n.op != "output":
            self.trace.storage[n] = _memory(result)
        return result


def _only(result: Any) -> Any:
    """The tensor of a result that is one tensor, or one in a tuple."""
    while isinstance(result, (tuple, list)) and len(result) == 1:
        result = result[0]
    return result


def _record(graph: fx.GraphModule, example: torch.Tensor) -> tuple[Trace, Any]:
    recorder = _Recorder(graph)
    result = recorder.run(example.clone())
    return recorder.trace, _only(result)


def trace(module: nn.Module, example: torch.Tensor) -> Trace:
    """Follow a module that is in eval mode.

    Parameters
    ----------
    module : the module
    example : a batch of its inputs

    Returns
    -------
    Trace of a graph that gives the module's own result for the example. ValueError if it gives
    no single tensor, or cannot be followed.
    """
    expected = _only(module(example.clone()))
    if not isinstance(expected, torch.Tensor):
        raise ValueError(f"from_module: the module's result is a {type(expected).__name__}; "
                         "allowed: one tensor (wrap the module in one that picks it)")
    reasons = []
    for follow in (lambda: fx.symbolic_trace(module), lambda: _export(module, example)):
        try:
            found, result = _record(follow(), example)
        except Exception as error:  # whatever stops a tracer is its answer
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0])
            continue
        # Symbolic tracing loses the in-place meaning of `x += y`; then the numbers tell.
        if result.shape == expected.shape and torch.equal(result, expected):
            return found
        reasons.append("the traced graph gives another result than the module")
    raise ValueError(f"from_module: {type(module).__name__} cannot be followed; torch.fx says: "
                     f"{reasons[0]}; torch.export says: {reasons[1]}")


def _export(module: nn.Module, example: torch.Tensor) -> fx.GraphModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (example,)).module()
