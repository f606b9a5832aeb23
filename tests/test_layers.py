"""Imports go down the layers only, `dkt` uses public names only, and the loop stays one page."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import tokenize
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
# The layer of each module: the longest prefix that matches decides.
LAYERS = {
    "__version__": 0,
    "tables": 0,
    "utilities": 0,
    "states": 0,
    "compat.era": 0,
    "compat.argparsing": 0,
    "compat.inherited": 0,
    "hooks": 1,
    "core.hparams": 1,
    "core": 2,
    "callbacks.callback": 2,
    "callbacks.checkpoint": 2,
    "loggers.logger": 2,
    "profilers.profiler": 2,
    "progress": 3,
    "results": 3,
    "shared_results": 3,
    "optimizers": 3,
    "machine": 3,
    "accelerators": 3,
    "plugins": 3,
    "callbacks": 3,
    "loggers": 3,
    "profilers": 3,
    "machine.ddp": 4,
    "machine.fsdp": 4,
    "strategies": 4,
    "agreement": 4,
    "dataflow": 4,
    "shards": 4,
    "checkpoint": 4,
    "run": 5,
    "loop": 6,
    "compat": 7,
    "explain": 7,
    "check": 7,
    "parity": 7,
    "defaults": 8,
    "closing": 8,
    "trainer": 8,
    "tuner": 8,
    "cli": 9,
    "demos": 9,
    "__main__": 9,
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p for p in sorted(SRC.rglob("*.py"))}
FRAMEWORK = [m for m in MODULES if m.startswith("fulgurite.")]


def layer(module: str) -> int:
    name = module.removeprefix("fulgurite.")
    prefixes = [p for p in LAYERS if name == p or name.startswith(f"{p}.")]
    assert prefixes, f"{module} stands in no layer: give it one"
    return LAYERS[max(prefixes, key=len)]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, those inside functions included, those for type checkers left out."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        yield child
        yield from executed(child)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that `path` imports, in full, with the line; `from package import submodule` names the submodule."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in executed(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [above, node.module]))
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base), node.lineno


def is_package_front(module: str) -> bool:
    """A package's `__init__`, which gathers what its modules offer; it counts as its highest layer."""
    return MODULES[module].name == "__init__.py"


@pytest.mark.parametrize("module", [m for m in FRAMEWORK if not is_package_front(m)])
def test_imports_go_down(module: str) -> None:
    upward = [
        f"line {line}: {name} (layer {layer(name)})"
        for name, line in imports(MODULES[module])
        if name in FRAMEWORK and layer(name) > layer(module)
    ]
    assert not upward, f"{module} (layer {layer(module)}) imports from above: {upward}"


def test_only_the_top_imports_the_package_itself() -> None:
    lazy = {"fulgurite.__main__", "fulgurite.cli"}
    users = {
        f"{m}:{line}" for m in FRAMEWORK if m not in lazy for name, line in imports(MODULES[m]) if name == "fulgurite"
    }
    assert not users, f"these import the package's front, which imports them: {users}"


def test_no_import_cycle() -> None:
    graph = {m: {n for n, _ in imports(p) if n in MODULES and n != m} for m, p in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


OF_DKT = [
    pytest.param(m, marks=pytest.mark.needs("jsonargparse")) if m == "dkt.lightning" else m
    for m in MODULES
    if m.split(".")[0] == "dkt"
]


@pytest.mark.parametrize("module", OF_DKT)
def test_dkt_uses_public_names_only(module: str) -> None:
    for node in executed(ast.parse(MODULES[module].read_text())):
        for full in [a.name for a in node.names] if isinstance(node, ast.Import) else []:
            assert not any(part.startswith("_") for part in full.split(".")) or not full.startswith("fulgurite"), full
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fulgurite":
            public = getattr(importlib.import_module(node.module or ""), "__all__", None)
            private = [a.name for a in node.names if a.name.startswith("_") or (public and a.name not in public)]
            assert not private, f"{module} line {node.lineno}: {node.module} does not offer {private} publicly"


def code_lines(path: Path) -> int:
    """Lines that hold code: no comments, docstrings or blank lines."""
    text = path.read_text()
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_the_loop_is_one_page() -> None:
    assert code_lines(SRC / "fulgurite" / "loop.py") <= 190


def test_the_old_lives_in_compat_only() -> None:
    """`compat/` is handed down by the trainer; below it is known what base classes inherit, alone."""
    below = [m for m in FRAMEWORK if layer(m) < 7 and not m.startswith("fulgurite.compat")]
    known = {(m, name) for m in below for name, _ in imports(MODULES[m]) if name.startswith("fulgurite.compat")}
    assert not {m for m, name in known if name != "fulgurite.compat.inherited"}


@pytest.mark.parametrize("names", ["", ".callbacks", ".loggers", ".strategies", ".profilers", ".tuner", ".plugins"])
def test_annotations_of_public_constructors_can_be_read_at_run_time(names: str) -> None:
    """By tools that make a command line of them."""
    public = importlib.import_module(f"fulgurite{names}")
    classes = [thing for name in public.__all__ if inspect.isclass(thing := getattr(public, name))]
    assert classes
    for cls in classes:
        typing.get_type_hints(cls.__init__)
