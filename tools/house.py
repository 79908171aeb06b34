"""Measures of the code's size and shape: ``python tools/house.py [FOLDER]``, or ``make house``.

It reads the sources and imports nothing of them. The goals are in ``docs/design.md``.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = "pipeline"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Function:
    """One function or method: where it is, the lines of its body without docstring, and its parameters."""

    name: str
    body_lines: int
    parameters: int
    is_command: bool


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: Dotted name.
        lines: Lines of the file, comments and blank lines too.
        functions: All functions and methods, inner ones too.
        public: Names without a leading underscore that it defines at its top level.
        at_import: Modules of the package that importing it imports.
        later: Modules that it imports inside functions, or for type checkers only.
    """

    name: str
    lines: int
    functions: tuple[Function, ...]
    public: tuple[str, ...]
    at_import: frozenset[str]
    later: frozenset[str]


def read_house(root: Path) -> dict[str, Module]:
    """Every module below ``root / PACKAGE``, by name."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    names = {_module_name(path, root) for path in files}
    return {_module_name(path, root): _read(path, root, names) for path in files}


def _module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _read(path: Path, root: Path, names: set[str]) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path))
    name = _module_name(path, root)
    early = frozenset(_imported(_statements_at_import(tree.body), names)) - {name}
    everything = frozenset(_imported(ast.walk(tree), names)) - {name}
    in_cli = name.startswith(f"{PACKAGE}.cli.")
    functions = tuple(_function(node, name, in_cli=in_cli) for node in ast.walk(tree) if isinstance(node, _FUNCTIONS))
    return Module(name, len(text.splitlines()), functions, tuple(_public(tree.body)), early, everything - early)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, module: str, *, in_cli: bool) -> Function:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    own = [item for item in arguments if item.arg not in {"self", "cls"}]
    # A command's parameters are annotated with what typer shows of them.
    is_command = in_cli and any("typer" in ast.dump(item.annotation) for item in own if item.annotation is not None)
    return Function(f"{module}.{node.name}", lines, len(own), is_command)


def _statements_at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Statements that run when the module is imported; what only type checkers read is left out."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from _statements_at_import([child for child in ast.walk(node) if isinstance(child, ast.stmt)][1:])


def _imported(nodes: Iterator[ast.AST], names: set[str]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found = full if full in names else node.module
                if found in names:
                    yield found


def _public(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (item.id for item in targets if isinstance(item, ast.Name) and not item.id.startswith("_"))


def find_cycles(edges: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Groups of modules that import one another, directly or through others.

    Source: Tarjan, 1972, Depth-first search and linear graph algorithms.

    >>> find_cycles({"a": frozenset({"b"}), "b": frozenset({"a", "c"}), "c": frozenset()})
    [['a', 'b']]
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(edges.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            cut = stack.index(name)
            groups.append(sorted(stack[cut:]))
            del stack[cut:]

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return sorted(group for group in groups if len(group) > 1)


def single_importers(house: Mapping[str, Module]) -> list[str]:
    """Modules that exactly one other module imports, at import time or later."""
    count = Counter(name for module in house.values() for name in module.at_import | module.later)
    return sorted(name for name, times in count.items() if times == 1)


def report(house: Mapping[str, Module]) -> Iterator[str]:
    """The figures, line by line."""
    functions = [item for module in house.values() for item in module.functions]
    bodies = [item.body_lines for item in functions]
    longest = max(functions, key=lambda item: item.body_lines)
    widest = max(functions, key=lambda item: item.parameters)
    command = max((item for item in functions if item.is_command), key=lambda item: item.parameters)
    modules = sorted(house.values(), key=lambda module: -module.lines)
    yield f"modules              {len(house)}"
    yield f"lines                {sum(module.lines for module in modules):,}"
    yield f"longest modules      {', '.join(f'{module.name} {module.lines}' for module in modules[:3])}"
    yield f"functions            {len(functions):,}"
    yield f"body, median, mean   {statistics.median(bodies):g}, {statistics.mean(bodies):.1f} lines"
    yield f"longest body         {longest.body_lines} lines, {longest.name}"
    yield f"most parameters      {widest.parameters}, {widest.name}"
    yield f"  of a command       {command.parameters}, {command.name}"
    yield f"public names         {sum(len(module.public) for module in modules)}"
    yield f"one importer only    {len(single_importers(house))} modules"
    yield f"files in workflow/   {sum(name.startswith(f'{PACKAGE}.workflow.') for name in house)}"
    yield from _cycles("cycles at import", {name: module.at_import for name, module in house.items()})
    yield from _cycles("cycles of any kind", {name: module.at_import | module.later for name, module in house.items()})
    yield ""
    yield from _rooms(house)


def _cycles(title: str, edges: Mapping[str, frozenset[str]]) -> Iterator[str]:
    found = find_cycles(edges)
    yield f"{title:<20} {len(found)}"
    yield from (f"  {' <-> '.join(group)}" for group in found)


def _rooms(house: Mapping[str, Module]) -> Iterator[str]:
    modules: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for name, module in house.items():
        room = name.split(".")[1] if name.count(".") else PACKAGE
        modules[room] += 1
        lines[room] += module.lines
    yield f"{'room':<14}{'modules':>8}{'lines':>8}"
    yield from (f"{room:<14}{modules[room]:>8}{total:>8,}" for room, total in lines.most_common())


def main() -> None:
    """Print the figures of the project in the folder given, or in the working folder."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()
    print("\n".join(report(read_house(root))))


if __name__ == "__main__":
    main()
