"""What analysts have on disk, rebuilt with planted truth: ``python -m tests.situations`` prints how each case is read.

Each case writes the files of a public bug report with coordinates or known reflectance in the pixels and says what came
of it: right; refused or asked about in words that help; wrong; or a traceback. The table is in docs/inputs.md. The
package of any version can be looked at by PYTHONPATH, which is how the column "before" was made.
"""

from __future__ import annotations

from tests.situations import case, grids, newer, oddities, products, values  # noqa: F401 - each puts its cases on the list

SITUATIONS = sorted(case.SITUATIONS, key=lambda one: int(one.kind))
