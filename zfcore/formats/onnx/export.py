"""ONNX files out: any network as a graph of NCHW tensors that other programs run.

Each layer's output tensor has the layer's name, "conv5.pre" is the tensor before a fused ReLU, and
weights are called "conv5.weight"; so the file reads back with the same names. Preprocessing, class
names and the version travel in `metadata_props`, and the preprocessing in a JSON beside the file too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import __version__, checks
from ...files import atomic_write, refuse_existing
from ...network import Network
from ...network.layout import flattened
from . import texts
from .nodes import EXPORTERS, Builder

OPSET = 18
IR_VERSION = 8
MAX_PROTOBUF = 2**31 - 1
BATCH = "N"


def first(shape: Sequence[int]) -> tuple[int, ...]:
    """(height, width, channels) with the channels first; other shapes as they are."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else tuple(shape)


def to_onnx(network: Network, outputs: Sequence[str] | None = None) -> Any:
    """The network as an `onnx.ModelProto` (opset 18), checked by the onnx package.

    Parameters
    ----------
    network : with parameters
    outputs : tensors to declare as outputs, such as ("conv5", "prob"); None: the network's output

    Returns
    -------
    ModelProto with input "input" (N, C, H, W). Vectors of flattened maps are in ONNX's order.
    ValueError lists all layers that ONNX has no operators for.
    """
    import onnx
    from onnx import TensorProto, helper

    names = (network.output,) if outputs is None else tuple(outputs)
    checks.require(len(names) > 0, "to_onnx", "outputs", names, "one name or more")
    for name in names:
        network.tensor_shape(name)
    network.parameters()  # which it must have
    missing = [f"{node.name} ({type(node.layer).__name__})" for node in network.nodes.values()
               if type(node.layer).__name__ not in EXPORTERS]
    if missing:
        raise ValueError(f"to_onnx: layers without an ONNX operator: {', '.join(missing)}")
    builder = Builder(network, flattened(network))
    for node in network.nodes.values():
        builder.add(node)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (BATCH, *first(network.tensor_shape(name))))
              for name in ("input", *names)]
    graph = helper.make_graph(builder.nodes, "network", values[:1], values[1:], builder.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                              producer_name="zfcore", producer_version=__version__)
    helper.set_model_props(model, texts.written(network))
    if model.ByteSize() > MAX_PROTOBUF:
        raise ValueError(f"to_onnx: the model needs {model.ByteSize()} bytes; allowed: {MAX_PROTOBUF}")
    onnx.checker.check_model(model, full_check=True)
    return model


def save(network: Network, path: str | os.PathLike[str], force: bool = False,
         outputs: Sequence[str] | None = None) -> None:
    """Write a network as ONNX, and its preprocessing as JSON beside it; each file whole or not at all.

    Parameters
    ----------
    network : with parameters
    path : the file, `model.onnx`; the preprocessing goes to `model.json`
    force : replace existing files
    outputs : tensors to declare as outputs; None: the network's output
    """
    target = refuse_existing(path, force)
    beside = Path(path).with_suffix(".json")
    if network.preprocessing is not None:
        refuse_existing(beside, force)
    model = to_onnx(network, outputs)
    atomic_write(target, model.SerializeToString())
    if network.preprocessing is not None:
        text = json.dumps({"preprocessing": texts.preprocessing(network)}, indent=2)
        atomic_write(beside, text.encode() + b"\n")
