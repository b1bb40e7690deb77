"""The rules of the house, as functions over source files: each returns a list of violations.

They read sources with `ast` and import nothing, so tests can run them on a small made-up package
and see them fail.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

# Top to bottom; a module may import modules of lower lines, and of its own unit, only.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("demo",),
    ("report",),
    ("study",),
    ("training", "explain"),
    ("pictures", "data", "formats", "interop"),
    ("models",),
    ("network",),
    ("layers",),
    ("rules", "ops", "initializers"),
    ("backends",),
    ("kernels",),
    ("preprocessing",),
    ("geometry", "files", "units"),
    ("checks",),
)
# The package's own front door: its lazy names reach everywhere, and only its version may be imported.
FRONT = "__init__"
Function = ast.FunctionDef | ast.AsyncFunctionDef
UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def sources(root: Path) -> list[Path]:
    """Every Python file below `root`, sorted."""
    return sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(package: Path, path: Path) -> str:
    """Dotted name of `path` with the package's name first."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(package: Path, path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything that `path` imports, inside functions too.

    `from x import y` gives `x.y` where that is a module or where x is the package itself.
    """
    name = module_name(package, path)
    base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join([*above, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                inner = package.parent.joinpath(*origin.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                yield node.lineno, f"{origin}.{alias.name}" if is_module or origin == package.name else origin
        elif (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args):
            argument = node.args[0]
            first = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value.rstrip(".")


def wrong_arrows(package: Path) -> list[str]:
    """Imports that run up or sideways through FLOORS, and modules that have no place there."""
    floor = {unit: level for level, units in enumerate(FLOORS) for unit in units}
    wrong = []
    for path in sources(package):
        name = module_name(package, path)
        unit = name.split(".")[1] if "." in name else FRONT
        if unit == FRONT:
            continue
        if unit not in floor:
            wrong.append(f"{name}: has no place in FLOORS")
            continue
        for line, target in imported(package, path):
            parts = target.split(".")
            if parts[0] != package.name or len(parts) == 1:
                continue
            other = parts[1]
            if other == unit or other == "__version__":
                continue
            if other not in floor:
                wrong.append(f"{name}:{line} imports {target} through the package's front door")
            elif floor[other] <= floor[unit]:
                wrong.append(f"{name}:{line} imports {target}, which is not below it")
    return wrong


def backend_choices(package: Path) -> list[str]:
    """Comparisons of a backend with something, outside backends/."""
    wrong = []
    for path in sources(package):
        if "backends" in path.relative_to(package).with_suffix("").parts:
            continue
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Compare) and not isinstance(node.ops[0], (ast.Is, ast.IsNot)):
                sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
                if any(re.search(r"(^|\.)backend(\.name|\.__name__)?$", side) for side in sides):
                    wrong.append(f"{path.name}:{node.lineno} chooses by backend: {ast.unparse(node)}")
    return wrong


def unsafe_loading(root: Path) -> list[str]:
    """Pickle in any of its forms."""
    wrong = []
    for path in sources(root):
        for node in ast.walk(parse(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            wrong += [f"{path.name}:{node.lineno} imports {name}" for name in names
                      if name.split(".")[0] in UNSAFE_MODULES]
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                pickles = keywords.get("allow_pickle")
                if pickles is not None and not (isinstance(pickles, ast.Constant) and pickles.value is False):
                    wrong.append(f"{path.name}:{node.lineno} allows pickle in {call}")
                if call == "torch.load":
                    wrong.append(f"{path.name}:{node.lineno} calls torch.load")
    return wrong


def long_files(paths: list[Path], limit: int = 500) -> list[str]:
    """Files of more than `limit` lines."""
    counted = ((path, len(path.read_text(encoding="utf-8").splitlines())) for path in paths)
    return [f"{path.name}: {lines} lines, at most {limit}" for path, lines in counted if lines > limit]


def parameters_section(docstring: str) -> list[str] | None:
    """Names in a docstring's numpydoc Parameters section, in order; None without that section."""
    lines = docstring.expandtabs().splitlines()
    for start, line in enumerate(lines[:-1]):
        if line.strip() == "Parameters" and set(lines[start + 1].strip()) == {"-"}:
            break
    else:
        return None
    indent = len(lines[start]) - len(lines[start].lstrip())
    names: list[str] = []
    for index in range(start + 2, len(lines)):
        text = lines[index]
        if index + 1 < len(lines) and text.strip() and set(lines[index + 1].strip()) == {"-"}:
            break
        match = re.match(r"(\*{0,2}\w+(?:, *\*{0,2}\w+)*) *(?::|$)", text[indent:])
        if match and len(text) - len(text.lstrip()) == indent:
            names += [name.strip().lstrip("*") for name in match.group(1).split(",")]
    return names


def signature(function: Function) -> list[str]:
    """Parameter names in order, without self, cls and names that begin with an underscore."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *([arguments.vararg] if arguments.vararg else []),
             *arguments.kwonlyargs, *([arguments.kwarg] if arguments.kwarg else [])]
    return [each.arg for each in every if each.arg not in {"self", "cls"} and not each.arg.startswith("_")]


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public top-level functions and classes, and the classes' public methods."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and node.name[0] != "_":
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Function) and inner.name[0] != "_":
                        yield f"{node.name}.{inner.name}", inner


def _exported(tree: ast.Module) -> set[str]:
    """Names in a literal `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
            if isinstance(node.value, (ast.List, ast.Tuple)):
                return {each.value for each in node.value.elts
                        if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return set()


def _inherited(package: Path) -> set[str]:
    """"Class.method" of every method that a base class in the package documents."""
    classes: dict[str, list[ast.ClassDef]] = {}  # two modules may each have a class of one name
    for path in sources(package):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(node)

    def documented(name: str, seen: frozenset[str]) -> set[str]:
        if name not in classes or name in seen:
            return set()
        own = {inner.name for node in classes[name] for inner in node.body
               if isinstance(inner, Function) and ast.get_docstring(inner)}
        return own.union(*(documented(ast.unparse(base), seen | {name})
                           for node in classes[name] for base in node.bases))

    return {f"{name}.{method}" for name, nodes in classes.items() for node in nodes for base in node.bases
            for method in documented(ast.unparse(base), frozenset({name}))}


def docstring_faults(package: Path) -> list[str]:
    """Public functions without a docstring, or whose Parameters section is not their signature.

    A method that overrides a documented one needs none: it does what its base class says.

    The section itself is asked of what a module lists in `__all__`; elsewhere one sentence may do.
    `backend` needs no entry: every operation has it, and it means the same everywhere.
    """
    wrong = []
    inherited = _inherited(package)
    for path in sources(package):
        if "kernels" in path.relative_to(package).parts:
            continue  # their comments describe geometry, and they are not public
        tree = parse(path)
        exported = _exported(tree)
        for name, node in _functions(tree):
            where = f"{path.relative_to(package)}:{node.lineno} {name}"
            text = ast.get_docstring(node, clean=False)
            if not text:
                overload = any("overload" in ast.unparse(each) or "setter" in ast.unparse(each)
                               for each in node.decorator_list)
                if not overload and name not in inherited:
                    wrong.append(f"{where}: no docstring")
                continue
            documented = parameters_section(text)
            if isinstance(node, ast.ClassDef):
                continue
            expected = [each for each in signature(node) if each != "backend"]
            if documented is None:
                if name in exported and expected:
                    wrong.append(f"{where}: no Parameters section")
            elif sorted(set(documented) - {"backend"}) != sorted(expected):
                wrong.append(f"{where}: Parameters {documented}, signature {expected}")
    return wrong


def backend_names(package: Path) -> dict[str, str]:
    """Names that operations call on their backend, each with the place of one such call."""
    calls = {}
    for path in sources(package / "ops"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "backend":
                calls[node.attr] = f"{path.name}:{node.lineno}"
    return calls
