"""No module imports, directly or through others, what imports it, not even inside a function."""

from __future__ import annotations

import grimp
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

# A scene opens what reads it: Source.open is a method, as stacks and composites open theirs otherwise.
OPENS = ("pipeline.scenes.scene", "pipeline.scenes.reader")


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which can reach every other of its group."""
    names = sorted(imports)
    number = {name: i for i, name in enumerate(names)}
    pairs = [(number[name], number[other]) for name in names for other in imports[name] if other in number]
    row, col = zip(*pairs, strict=True) if pairs else ((), ())
    graph = csr_array((np.ones(len(pairs)), (row, col)), shape=(len(names), len(names)))
    _, group = connected_components(graph, connection="strong")
    sizes = np.bincount(group)
    return [[names[i] for i in np.flatnonzero(group == which)] for which in np.flatnonzero(sizes > 1)]


def test_a_circle_is_found_however_long():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_no_module_imports_what_imports_it():
    graph = grimp.build_graph("pipeline", exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    assert "pipeline.workflow.stage_chips" in imports["pipeline.workflow.stages"]  # imports in functions count
    imports[OPENS[0]].remove(OPENS[1])
    assert circles(imports) == []
