"""How results are kept: a folder with `manifest.json` and one `.npy` file an array, never pickle.

The manifest holds the description (settings, names, versions) and for every array its type, shape
and SHA-256, and its own checksum: a truncated or altered folder is told from a whole one. Arrays
are memory-mapped when loaded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import __version__, backends
from ..files import atomic_folder, atomic_write, refuse_existing

FORMAT, VERSION = "zfcore-result", 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Pieces(Protocol):
    """An array that is made while it is written, and never whole in memory."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    def pieces(self) -> Iterator[np.ndarray]:
        """Its parts along the first axis, in their order."""


class ResultError(ValueError):
    """A folder that is no whole result of the kind asked for; the message begins with its path."""


def versions() -> dict[str, str]:
    """What computed a result: versions of zfcore, Python, NumPy and Numba, and the machine's type."""
    from importlib import metadata

    named = {"zfcore": __version__, "python": platform.python_version(), "machine": platform.machine()}
    return named | {package: metadata.version(package) for package in ("numpy", "numba", "pillow")}


def network_hash(network: Any) -> str:
    """SHA-256 over a network's configuration and all its parameters."""
    return network_hashing(network)()


def network_hashing(network: Any) -> Callable[[], str]:
    """The work of `network_hash`, which another thread may do while the network runs.

    The network itself is read now. Its parameters are not copied, unless they are on a device.
    """
    digest = hashlib.sha256(json.dumps(network.to_config(), sort_keys=True).encode())
    if network.preprocessing is not None:
        for name, array in sorted(network.preprocessing.tensors().items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    parameters = [(name, backends.to_numpy(array)) for name, array in sorted(network.parameters().items())]

    def work() -> str:
        for name, array in parameters:
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
    return work


def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def guard(path: str | os.PathLike[str], force: bool) -> Path:
    """Refuse an existing path; with `force`, too, a folder that zfcore did not write."""
    target = refuse_existing(path, force)
    ours = ("manifest.json", "summary.json")
    if target.is_dir() and any(target.iterdir()) and not any((target / name).exists() for name in ours):
        raise FileExistsError(f"{target} is not empty and holds no zfcore result: it is not replaced")
    return target


def save(path: str | os.PathLike[str], kind: str, description: Mapping[str, Any],
         arrays: Mapping[str, np.ndarray | Pieces], *, force: bool = False) -> None:
    """Write a result folder, completely or not at all.

    Parameters
    ----------
    path : the folder; it must not exist, or be an earlier result and `force` be set
    kind : what it is a result of, such as "atlas"
    description : JSON values
    arrays : numeric arrays, or their `Pieces`, by name (letters, digits, "_", ".", "-")
    force : replace an earlier result
    """
    for name, array in arrays.items():
        if not _NAME.fullmatch(name) or array.dtype.kind not in "biuf":
            raise ValueError(f"save: array {name!r} is of {array.dtype}; allowed: plain names, numeric types")
    with atomic_folder(guard(path, force), force) as folder:
        stored = {}
        for name, array in arrays.items():
            digest = atomic_write(folder / f"{name}.npy", functools.partial(_write, array=array))
            stored[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": digest}
        manifest = {"format": FORMAT, "version": VERSION, "kind": kind, "description": dict(description),
                    "arrays": stored}
        manifest = json.loads(json.dumps(manifest, allow_nan=False))  # keys are text, tuples are lists
        manifest["checksum"] = _checksum(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "ascii")


def _write(file: Any, array: np.ndarray | Pieces) -> None:
    """Write an array as `numpy.save` does."""
    if isinstance(array, np.ndarray):
        np.save(file, array, allow_pickle=False)
        return
    description = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, description)
    for piece in array.pieces():
        file.write(np.ascontiguousarray(piece).data)


def load(path: str | os.PathLike[str], kind: str, *, verify: bool = True
         ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a result folder.

    Parameters
    ----------
    path : the folder
    kind : what it must be a result of
    verify : compare every array with its SHA-256, which reads all of it once

    Returns
    -------
    (description, arrays) : the arrays are read-only memory maps

    Raises
    ------
    FileNotFoundError : there is no such folder
    ResultError : no result, one of another kind or version, or a damaged one
    """
    folder = Path(path)
    manifest = _manifest(folder)
    if manifest.get("kind") != kind:
        raise ResultError(f"{folder}: is a result of kind {manifest.get('kind')!r}; allowed: {kind!r}")
    arrays = {}
    for name, stored in manifest["arrays"].items():
        file = folder / f"{name}.npy"
        if not file.is_file():
            raise ResultError(f"{folder}: the array {name!r} is missing")
        try:
            array = np.load(file, mmap_mode="r" if 0 not in stored["shape"] else None, allow_pickle=False)
        except Exception as error:  # a damaged file makes NumPy raise nearly anything
            raise ResultError(f"{file}: damaged ({error})") from error
        if array.dtype.str != stored["dtype"] or list(array.shape) != stored["shape"]:
            raise ResultError(f"{file}: is {array.dtype.str} {array.shape}; "
                              f"allowed: {stored['dtype']} {tuple(stored['shape'])}, as the manifest says")
        if verify and _file_hash(file) != stored["sha256"]:
            raise ResultError(f"{file}: damaged (its SHA-256 is not the one in the manifest)")
        arrays[name] = array
    return manifest["description"], arrays


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest, if it is whole and ours."""
    file = folder / "manifest.json"
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not file.is_file():
        raise ResultError(f"{folder}: holds no manifest.json: not a result that zfcore saved")
    try:
        manifest = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{file}: damaged ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ResultError(f"{file}: not the manifest of a zfcore result")
    if manifest.get("version") != VERSION:
        raise ResultError(f"{file}: is of version {manifest.get('version')!r}; allowed: {VERSION}")
    if manifest.get("checksum") != _checksum(manifest):
        raise ResultError(f"{file}: damaged (its checksum does not fit)")
    arrays = manifest.get("arrays")
    if not isinstance(manifest.get("description"), dict) or not isinstance(arrays, dict) or not all(
            _NAME.fullmatch(name) and isinstance(stored, dict) and isinstance(stored.get("shape"), list)
            and {"dtype", "sha256"} <= set(stored) for name, stored in arrays.items()):
        raise ResultError(f"{file}: not the manifest of a zfcore result")
    return manifest


def kind_of(path: str | os.PathLike[str]) -> str:
    """What a saved folder is a result of; ResultError where it is none."""
    return str(_manifest(Path(path)).get("kind"))
