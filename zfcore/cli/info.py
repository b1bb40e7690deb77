"""`zfcore info`: a model's layers, or the machine that would run it."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Architecture, Json, Pixels, Sides, load_model, size, tell

if TYPE_CHECKING:
    from ..network import Network

FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "neon", "sve")


def info(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", show_default=False,
                                                help="A .safetensors or .onnx file, or a built-in name.")] = None,
    architecture: Architecture = None,
    preprocessing: Pixels = None,
    input_size: Sides = None,
    system: Annotated[bool, typer.Option("--system", help="Versions, threads, processor, backends.")] = False,
    json: Json = False,
) -> None:
    """List a model's layers, shapes and receptive fields.

    \b
    zfcore info zfcore-demo/model.safetensors
    zfcore info zfnet              a built-in architecture
    zfcore info --system           what this machine offers

    A receptive field is the square of input pixels that one unit sees: its side, the distance
    between neighbouring units' squares, and where the first one starts.
    """
    if system:
        summary = describe_system()
        tell(summary, json, "\n".join(f"{key:<12} {_words(value)}" for key, value in summary.items()))
        return
    if model is None:
        from .. import models

        raise ValueError("MODEL is missing; allowed: a .safetensors or .onnx file, or one of "
                         + ", ".join(sorted(models.MODELS)))
    net = load_model(model, quiet=True, architecture=architecture, preprocessing=preprocessing,
                     input_size=input_size)
    tell(describe(net), json, words(net))


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def describe_system() -> dict[str, Any]:
    """Versions, threads, processor and backends, without which a result cannot be explained."""
    from .. import __version__, backends
    from ..kernels import compile, threads

    versions = {}
    for name in ("numpy", "numba", "llvmlite", "pillow", "safetensors", "scikit-learn", "torch", "jax", "cupy-cuda13x"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    available = {}
    for name in backends.NAMES:
        reason = backends.why_not(name)
        available[name] = "available" if reason is None else f"missing: {reason}"
    return {
        "zfcore": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": threads.get_num_threads(),
        "versions": versions,
        "backends": available,
        "cuda": backends.built(),
        "default": backends.default(),
        "kernels": str(compile.cache_folder()),
    }


def _processor() -> dict[str, str]:
    """The processor as the kernels' compiler sees it."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    shown = " ".join(name for name in FEATURES if features.get(name))
    return {"name": binding.get_host_cpu_name(), "features": shown}


def describe(net: Network) -> dict[str, Any]:
    """A network as plain values: its layers' table and totals."""
    layers = []
    for row in net.layers():
        values = asdict(row)
        values["inputs"] = list(row.inputs)
        layers.append(values)
    memory = net.memory()
    return {
        "name": net.name,
        "input_shape": list(net.input_shape),
        "preprocessing": net.preprocessing.to_config() if net.preprocessing else None,
        "class_names": net.class_names,
        "parameters": net.parameter_count,
        "bytes": {"parameters": memory.parameters, "forward_of_one_image": memory.forward},
        "multiply_adds": sum(row.multiply_adds for row in net.layers()),
        "layers": layers,
    }


def words(net: Network) -> str:
    """The layers' table with a line about size, work, preprocessing and classes."""
    memory = net.memory()
    adds = sum(row.multiply_adds for row in net.layers())
    lines = [str(net), "", f"{size(memory.parameters)} of parameters as float32, {adds / 1e6:,.1f} million "
             f"multiply-adds for one image"]
    if net.preprocessing is None:
        lines.append("preprocessing: none recorded; images need one")
    else:
        config = net.preprocessing.to_config()
        if config["mean"] is None:
            config["mean"] = "per pixel"
        lines.append("preprocessing: " + ", ".join(f"{key} {value}" for key, value in config.items()))
    if net.class_names:
        more = f" ... ({len(net.class_names)})" if len(net.class_names) > 12 else ""
        lines.append(f"classes: {', '.join(net.class_names[:12])}{more}")
    return "\n".join(lines)
