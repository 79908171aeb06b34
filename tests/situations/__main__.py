"""The table of all cases."""

from __future__ import annotations

from tests.situations import SITUATIONS
from tests.situations.case import result_of

if __name__ == "__main__":
    print("| item | on disk | result |\n| --- | --- | --- |")  # noqa: T201 - the table is what it is for
    for case in SITUATIONS:
        result = " ".join(result_of(case).split())[:110].replace("|", "/")
        print(f"| {case.kind} | {case.name} | {result} |", flush=True)  # noqa: T201 - as above
