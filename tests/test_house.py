"""The rules of the house hold, and each check can fail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import house
import pytest

from zfcore import backends

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "zfcore"


def package(folder: Path, **files: str) -> Path:
    """A made-up package whose modules are given as `floor__module="source"`."""
    root = folder / "zfcore"
    for name, text in {"__init__": "", **files}.items():
        path = root.joinpath(*name.split("___")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_imports_run_downwards() -> None:
    assert house.wrong_arrows(PACKAGE) == []


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"layers": "from .network import Network", "network": ""}, "not below"),
        ({"layers": "def f():\n    from zfcore import network", "network": ""}, "not below"),
        ({"data___reader": "import zfcore.pictures", "pictures": ""}, "not below"),
        ({"kernels___a": "import importlib\nimportlib.import_module('zfcore.ops')", "ops": ""}, "not below"),
        ({"kernels___a": "import importlib\nimportlib.import_module(f'zfcore.ops.{1}')"}, "not below"),
        ({"stray": ""}, "no place"),
        ({"study___a": "from zfcore import load"}, "front door"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, files: dict[str, str], word: str) -> None:
    found = house.wrong_arrows(package(tmp_path, **files))
    assert len(found) == 1 and word in found[0]


def test_right_imports_are_not_blamed(tmp_path: Path) -> None:
    root = package(
        tmp_path,
        network="from . import __version__\nfrom .layers import Convolution\nimport numpy",
        layers___base="from ..ops import relu\nfrom .other import x",
        layers___other="x = 1",
        layers="",
        ops="from . import checks",
        checks="",
    )
    assert house.wrong_arrows(root) == []


def test_only_backends_chooses_the_backend(tmp_path: Path) -> None:
    assert house.backend_choices(PACKAGE) == []
    bad = package(tmp_path, ops="if backend == 'numba':\n  pass\nif ops.backend.name in ('a',):\n  pass",
                  backends="if backend == 'numba':\n    pass", layers="x = backend is None")
    assert len(house.backend_choices(bad)) == 2


def test_nothing_is_pickled(tmp_path: Path) -> None:
    assert [fault for folder in (PACKAGE, ROOT / "tests", ROOT / "benchmarks")
            for fault in house.unsafe_loading(folder)] == []
    bad = package(tmp_path, a="import pickle", b="from joblib import load", c="np.load(f, allow_pickle=True)",
                  d="np.load(f, allow_pickle=False)", e="torch.load(f)")
    assert len(house.unsafe_loading(bad)) == 4


def tracked(*patterns: str) -> list[Path]:
    """Files under version control; everything on disk where this is no git checkout."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--", *patterns],
                                capture_output=True)
        if listed.returncode == 0:
            names = [name for name in listed.stdout.decode().split("\0") if name]
            return [ROOT / name for name in names if (ROOT / name).exists()]
    return [path for pattern in patterns for path in ROOT.rglob(pattern) if ".venv" not in path.parts]


def test_files_are_small(tmp_path: Path) -> None:
    assert house.long_files(tracked("*.py", "*.cu", "*.cuh", "*.md")) == []
    (tmp_path / "long.py").write_text("x = 1\n" * 501)
    assert len(house.long_files([tmp_path / "long.py"])) == 1


def test_public_functions_are_documented() -> None:
    assert house.docstring_faults(PACKAGE) == []


def documented(signature: str, *entries: str, before: str = "") -> str:
    """Source of a function `f` with the given Parameters section."""
    section = ["Parameters", "----------", *entries, "", "Returns", "-------", "result : something"]
    return f"{before}def f({signature}):\n    '''Sentence.\n\n" + "".join(
        f"    {line}\n" for line in section) + "    '''\n"


@pytest.mark.parametrize(
    "text",
    [
        "def f(x): pass",
        "class A:\n    '''Doc.'''\n    def f(self): pass",
        "__all__ = ['f']\ndef f(x):\n    '''One sentence.'''",
        documented("x, y", "x : a", "    y : indented, so a part of x"),
        documented("x, y", "x : a"),
        documented("x", "x : a", "z : b"),
    ],
)
def test_a_faulty_docstring_is_found(tmp_path: Path, text: str) -> None:
    assert len(house.docstring_faults(package(tmp_path, ops=text))) == 1


def test_a_right_docstring_is_not_blamed(tmp_path: Path) -> None:
    text = documented("x, y, *more, size=1, backend=None, _hidden=0", "x, y : a", "*more : b", "    deeper",
                      "size : c", before="__all__ = ['f']\n")
    assert house.docstring_faults(package(tmp_path, ops=text)) == []


@pytest.mark.parametrize("name", backends.NAMES)
def test_every_backend_has_what_operations_call(name: str) -> None:
    called = house.backend_names(PACKAGE)
    assert len(called) > 20
    try:
        backend = backends.get(name)
    except ImportError as error:  # the emulated kernels need a C++ compiler, which a fresh machine may lack
        pytest.skip(str(error))
    missing = {each: place for each, place in called.items() if not hasattr(backend, each)}
    assert missing == {}


def test_calls_on_a_backend_are_found(tmp_path: Path) -> None:
    root = package(tmp_path, ops___pooling="backend.max_pool(x)\nbackend.empty(1)")
    assert set(house.backend_names(root)) == {"max_pool", "empty"}


def test_no_file_names_this_machine_or_a_package_index() -> None:
    """No home folders, no package index, no network address of a builder in any tracked text."""
    needles = ["/" + "home/", "/" + "root/", "index" + "-url", "find" + "-links", str(Path.home()) + "/"]
    found = []
    for path in tracked():
        if path.suffix in {".png", ".npz", ".jpg", ".safetensors"}:
            continue
        text = path.read_text(encoding="utf-8")
        found += [f"{path.name}: {needle}" for needle in needles if needle in text]
    assert found == []


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    """With only too old a Python in sight, one message and no half-made environment."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")  # what an old one answers to the question
    (tools / "python3").chmod(0o755)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    result = subprocess.run([tools / "make", "demo"], cwd=tmp_path, env={"PATH": str(tools)}, capture_output=True,
                            text=True)
    assert result.returncode == 2
    assert "needs Python 3.11 or newer" in result.stderr and "make PYTHON=" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_oracle_imports_nothing_of_the_package(tmp_path: Path) -> None:
    """Naive loops that shared code with the kernels would share their faults."""
    def strangers(root: Path) -> list[str]:
        return [f"{path.name}:{line} {name}" for path in house.sources(root)
                for line, name in house.imported(root, path)
                if name.split(".")[0] not in {"__future__", "collections", "math", "numpy", "typing", root.name}]

    assert strangers(ROOT / "tests" / "reference") == []
    (tmp_path / "reference.py").write_text("from zfcore import ops\nimport numpy\nfrom . import x")
    assert strangers(tmp_path) == ["reference.py:1 zfcore"]
