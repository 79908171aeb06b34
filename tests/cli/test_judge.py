"""What an analyst types: designs, assessments, comparisons; and one line for each thing wrong with the input."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio

from pipeline.cli import main
from tests.accuracy.maps import SCHEME, patchy, points, spoil, write_map

NAME = {item.code: item.name for item in SCHEME.classes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """``map.tif`` of a truth with errors in it, ``truth.tif``, and ``sample.gpkg`` drawn and interpreted."""
    folder = tmp_path_factory.mktemp("maps")
    truth = patchy()
    write_map(folder / "truth.tif", truth)
    write_map(folder / "map.tif", spoil(truth))
    draw(folder, "sample", "--size", "300")
    return folder


def draw(folder: Path, name: str, *options: str, on: str = "map.tif") -> None:
    """Draw a sample and fill it in."""
    assert main(["design", str(folder / on), "-o", str(folder / f"{name}.gpkg"), "--quiet", *options]) == 0
    fill_in(folder / f"{name}.gpkg", folder / f"{name}_filled.gpkg", truth=folder / "truth.tif")


def fill_in(sample: Path, target: Path, *, truth: Path) -> None:
    """Interpret a sample by the truth."""
    frame = geopandas.read_file(sample, layer="sample")
    with rasterio.open(truth) as source:
        codes = [int(value[0]) for value in source.sample(zip(frame.geometry.x, frame.geometry.y, strict=True))]
    frame["reference"] = [NAME[code] for code in codes]
    frame.to_file(target, layer="sample")


@pytest.fixture
def said(capsys):
    """Run a command; its JSON, or its single line of error."""

    def run(*arguments: object) -> dict:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(capsys):
    """Run a command that fails with one line on stderr, which holds all the words."""

    def run(arguments, *words: str) -> None:
        capsys.readouterr()
        assert main(list(map(str, arguments))) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("landcover: error: ")
        assert [word for word in words if word not in lines[0]] == [], lines[0]

    return run


def assess(folder: Path, reference: str, *options: object, field: str | None = "reference") -> list[object]:
    named = ["--field", field] if field else []
    return ["assess", folder / "map.tif", "--reference", folder / reference, *named, *options]


def design_of(folder: Path, name: str) -> list[object]:
    return ["--design", folder / f"{name}_design.json"]


class TestAssess:
    @pytest.mark.parametrize("name", ["truth.gtif", "truth"])
    def test_a_raster_is_known_by_what_it_is_and_not_by_its_name(self, folder, said, tmp_path, name):
        (tmp_path / name).write_bytes((folder / "truth.tif").read_bytes())
        found = said(*assess(folder, str(tmp_path / name), field=None))
        assert found["error_matrix"] == said(*assess(folder, "truth.tif", field=None))["error_matrix"]

    def test_a_missing_field_is_named_by_its_option(self, folder, refused):
        refused(assess(folder, "sample_filled.gpkg", field=None), "no field given", "--field")

    def test_a_design_that_is_neither_word_nor_file_is_said(self, folder, refused):
        refused(
            assess(folder, "sample_filled.gpkg", "--design", "random"), "got random", "'simple random'", "'systematic'"
        )

    def test_json_has_the_promised_keys_and_no_others_are_needed(self, folder, said):
        found = said(*assess(folder, "sample_filled.gpkg", *design_of(folder, "sample")))
        assert {"overall_accuracy", "per_class", "error_matrix", "sampling"} <= set(found)
        figures = [found["overall_accuracy"]]
        for name in SCHEME.names:
            item = found["per_class"][name]
            figures += [item[key] for key in ("users_accuracy", "producers_accuracy", "f1", "area_ha")]
        for figure in figures:
            assert {"estimate", "se", "ci95"} <= set(figure)
            assert figure["ci95"][0] <= figure["estimate"] <= figure["ci95"][1]
        assert {"counts", "proportions"} <= set(found["error_matrix"])
        assert "agreement_beyond_chance" not in found

    def test_text_gives_figure_interval_and_design(self, folder, capsys):
        assert main(list(map(str, assess(folder, "sample_filled.gpkg", *design_of(folder, "sample"), "--kappa")))) == 0
        text = capsys.readouterr().out
        assert "map.tif: overall accuracy" in text
        assert "% +- " in text
        assert "stratified random sample of 300 pixels" in text
        assert "quantity disagreement" in text
        assert "not a probability sample" not in text

    def test_without_a_design_summary_and_figures_are_labelled(self, folder, capsys):
        assert main(list(map(str, assess(folder, "sample_filled.gpkg")))) == 0
        text = capsys.readouterr().out
        assert text.splitlines()[0].endswith("(not a probability sample)")
        assert "accuracy and area - not a probability sample" in text
        assert "+-" not in text

    @pytest.mark.parametrize("told", ["simple random", "simple_random", "systematic"])
    def test_a_design_can_be_told_in_words(self, folder, said, told):
        found = said(*assess(folder, "sample_filled.gpkg", "--design", told))
        assert found["sampling"]["design"] == told.replace("_", " ")
        assert ("no unbiased variance" in found["sampling"]["words"]) == (told == "systematic")

    @pytest.mark.parametrize("kind", ["simple_random", "systematic", "cluster", "two_stage"])
    def test_every_design_is_assessed_with_its_own_variance(self, folder, said, kind):
        size = ["40", "--cluster-px", "4"] if kind in {"cluster", "two_stage"} else ["300"]
        draw(folder, kind, "--kind", kind, "--overwrite", "--per-cluster", "5", "--size", *size)
        found = said(*assess(folder, f"{kind}_filled.gpkg", *design_of(folder, kind)))
        assert found["sampling"]["probability_sample"]
        with rasterio.open(folder / "map.tif") as one, rasterio.open(folder / "truth.tif") as two:
            mapped, truth = one.read(1), two.read(1)
        true = (mapped == truth)[truth > 0].mean()
        overall = found["overall_accuracy"]
        assert abs(overall["estimate"] - true) < 4 * overall["se"]

    def test_what_has_no_interval_says_why_below_its_table(self, tmp_path, capsys):
        path = write_map(tmp_path / "map.tif", patchy())  # without an error, so omissions are nowhere seen
        write_map(tmp_path / "truth.tif", patchy())
        draw(tmp_path, "sample", "--size", "60")
        capsys.readouterr()
        given = ["--reference", tmp_path / "sample_filled.gpkg", "--field", "reference"]
        assert main(list(map(str, ["assess", path, *given, *design_of(tmp_path, "sample")]))) == 0
        text = capsys.readouterr().out.split("error matrix")[0]
        notes = [line for line in text.splitlines() if line.startswith("  no interval for")]
        assert all(any(f"producer's of {name}" in line for line in notes) for name in SCHEME.names)
        assert all("the sample shows no variance" in line for line in notes)
        assert "user's of" not in text

    def test_a_map_without_a_legend_is_assessed_with_one(self, folder, said, refused, tmp_path):
        bare = write_map(tmp_path / "bare.tif", spoil(patchy()), scheme=None)
        (tmp_path / "legend.json").write_text(json.dumps(SCHEME.to_json()))
        command = ["assess", bare, "--reference", folder / "sample_filled.gpkg", "--field", "reference"]
        found = said(*command, "--legend", tmp_path / "legend.json")
        with_its_own = said(*assess(folder, "sample_filled.gpkg"))
        assert found["overall_accuracy"] == with_its_own["overall_accuracy"]
        refused(command, "does not say what its codes mean")
        refused([*command, "--legend", tmp_path / "none.json"], "legend cannot be read", "ESA WorldCover")


class TestCompare:
    def test_a_raster_as_reference_compares_every_pixel(self, folder, said, capsys):
        command = ["compare", folder / "map.tif", folder / "truth.tif", "--reference", folder / "truth.tif"]
        found = said(*command)
        assert found["mcnemar"] is None
        assert found["right"]["only_first"] == found["right"]["neither"] == 0
        assert found["units"] == sum(found["right"].values())
        assert main(list(map(str, command))) == 0
        text = capsys.readouterr().out
        assert "(agreement on all pixels)" in text
        assert "McNemar's test, which asks" in text

    def test_maps_of_one_name_are_told_apart_by_their_folders(self, folder, capsys):
        for run, name in (("run_a", "map.tif"), ("run_b", "truth.tif")):
            (folder / run / "maps").mkdir(parents=True)
            (folder / run / "maps" / "lc.tif").write_bytes((folder / name).read_bytes())
        paths = [str(folder / run / "maps" / "lc.tif") for run in ("run_a", "run_b")]
        assert main(["compare", *paths, "--reference", str(folder / "truth.tif")]) == 0
        text = capsys.readouterr().out
        assert [text.count(f"{run}/maps/lc.tif") for run in ("run_a", "run_b")] == [2, 2]

    def test_points_need_their_field(self, folder, refused):
        reference = ["--reference", folder / "sample_filled.gpkg"]
        refused(["compare", folder / "map.tif", folder / "truth.tif", *reference], "name the field")


class TestDesign:
    def test_the_next_command_can_be_pasted(self, folder, capsys):
        draw(folder, "next one", "--size", "40")
        capsys.readouterr()
        out = str(folder / "next one.gpkg")
        assert main(["design", str(folder / "map.tif"), "-n", "40", "-o", out, "--overwrite"]) == 0
        command = shlex.split(capsys.readouterr().out.splitlines()[-1])
        assert command[:3] == ["landcover", "assess", str(folder / "map.tif")]
        shutil.copy(folder / "next one_filled.gpkg", out)
        assert main(command[1:]) == 0

    def test_strata_by_change_between_two_maps(self, folder, said):
        found = said(
            "design", folder / "map.tif", "--change-from", folder / "truth.tif", "--size", 60, "--allocation", "equal",
            "-o", folder / "change.gpkg",
        )  # fmt: skip
        names = {item["name"] for item in found["designs"][0]["strata"]}
        assert {"stable forest", "forest -> water"} <= names
        assert found["designs"][0]["units"] == 60

    def test_strata_by_confidence(self, folder, said):
        with rasterio.open(folder / "map.tif") as source:
            profile = source.profile | {"nodata": 255}
        values = np.tile(np.arange(300) * 100 // 300, (200, 1)).astype(np.uint8)
        with rasterio.open(folder / "confidence.tif", "w", **profile) as target:
            target.write(values, 1)
        strata = ["--strata", folder / "confidence.tif", "--strata-edges", "50,80"]
        found = said("design", folder / "map.tif", *strata, "--size", 90, "-o", folder / "sure.gpkg")
        assert [item["name"] for item in found["designs"][0]["strata"]] == ["below 50", "50 to 80", "80 and more"]
        again = said(*assess(folder, "sample_filled.gpkg", *strata))
        assert [item["name"] for item in again["sampling"]["strata"]] == ["below 50", "50 to 80", "80 and more"]

    def test_a_size_follows_from_target_and_expected_accuracies(self, folder, said):
        options = ["--target-se", 0.03, "--overwrite", "-o", folder / "size.gpkg"]
        for kind in ("stratified", "simple_random"):
            found = said("design", folder / "map.tif", "--kind", kind, "--expected", 0.9, *options)
            assert found["designs"][0]["units"] == pytest.approx((0.3 / 0.03) ** 2, abs=2)
        mixed = ["--expected", "water=0.6", "--expected", "0.9"]
        assert said("design", folder / "map.tif", *mixed, *options)["designs"][0]["units"] > 100

    @pytest.mark.parametrize("kind", ["cluster", "two_stage"])
    def test_squares_by_strata(self, folder, said, kind):
        options = [
            "--kind",
            kind,
            "--strata",
            "map",
            "--allocation",
            "equal",
            "--cluster-px",
            "4",
            "--per-cluster",
            "5",
        ]
        draw(folder, f"by_{kind}", *options, "--size", "45", "--overwrite")
        found = said(*assess(folder, f"by_{kind}_filled.gpkg", *design_of(folder, f"by_{kind}")))
        assert [item["name"] for item in found["sampling"]["strata"]] == list(SCHEME.names)
        assert "in 45 of" in found["sampling"]["words"]
        assert "within 3 strata" in found["sampling"]["words"]
        assert found["overall_accuracy"]["se"] > 0

    def test_a_rule_that_a_small_sample_cannot_keep_is_said(self, folder, capsys):
        command = ["design", folder / "map.tif", "--size", "60", "-o", folder / "small.gpkg", "--overwrite"]
        assert main(list(map(str, command))) == 0
        assert "allocation: equal, as olofsson's 75" in capsys.readouterr().out
        assert "olofsson's 75" in json.loads((folder / "small_design.json").read_text())["allocation"]

    def test_two_maps_get_a_sample_each(self, folder, said):
        found = said("design", folder / "map.tif", folder / "truth.tif", "--size", 30, "-o", folder / "two.gpkg")
        assert (folder / "two_map.gpkg").exists()
        assert (folder / "two_truth_design.json").exists()
        assert [item["units"] for item in found["designs"]] == [30, 30]

    def test_what_cannot_be_drawn_is_refused_in_one_line(self, folder, refused):
        start = ["design", folder / "map.tif", "-o", folder / "none.gpkg", "--size", 50]
        refused(
            [*start, "--kind", "systematic", "--strata", "map"], "strata for a sample of kind systematic", "cluster"
        )
        refused([*start, "--kind", "cluster", "--allocation", "equal"], "allocation", "cluster", "add --strata")
        refused([*start, "--kind", "guess"], "--kind", "simple_random")
        refused(
            [*start, "--set", "design.minimum_distance_m=50"], "'design.minimum_distance_m' went", "--kind systematic"
        )
        refused([*start, "--expected", "swamp=0.9", "--allocation", "neyman"], "unknown strata: swamp")
        refused([*start, "--expected", "water"], "--expected", "name=0.9")
        refused([*start, "--strata-edges", "80,50"], "ascending")
        refused(["design", folder / "map.tif", "--size", 10**9, "-o", folder / "none.gpkg"], "sample size")
        refused(["design", folder / "map.tif", "-o", folder / "sample.gpkg"], "sample.gpkg", "--overwrite")
        refused(["design", folder / "missing.tif", "-o", folder / "none.gpkg"], "missing.tif")


class TestBadReferences:
    def test_points_without_a_mapped_class_are_listed(self, folder, said):
        rows, cols = [100, 120, 5000, 5], [100, 140, 5, 5]
        points(folder / "odd.gpkg", rows, cols, ["forest", "field", "water", "water"])
        found = said(*assess(folder, "odd.gpkg", field="cover"))["sampling"]
        assert found["excluded"]["by_reason"] == {"outside the map": 1, "on nodata": 1}
        assert [item["id"] for item in found["excluded"]["units"]] == ["3", "4"]
        assert "2 of 4 reference units were left out" in found["words"]
        assert "hold for the whole only as far as" in found["words"]

    def test_unknown_classes(self, folder, refused):
        points(folder / "strange.gpkg", [100, 120], [100, 140], ["forest", "swamp"])
        refused(assess(folder, "strange.gpkg", field="cover"), "strange.gpkg", "swamp", "--crosswalk a CSV")

    def test_a_sample_that_does_not_match_its_design(self, folder, refused):
        draw(folder, "other", "--size", "200", "--seed", "9", "--overwrite")
        refused(assess(folder, "sample_filled.gpkg", *design_of(folder, "other")), "written with this sample")
        refused(assess(folder, "sample_filled.gpkg", "--design", folder / "nothing.json"), "nothing.json")

    def test_one_point_in_a_stratum_has_no_variance_and_says_so(self, folder, said):
        frame = geopandas.read_file(folder / "sample_filled.gpkg", layer="sample")
        with rasterio.open(folder / "map.tif") as source:
            codes = np.array([v[0] for v in source.sample(zip(frame.geometry.x, frame.geometry.y, strict=True))])
        alone = np.flatnonzero(codes == 20)[1:]
        frame.drop(index=alone).to_file(folder / "alone.gpkg", layer="sample")
        found = said(*assess(folder, "alone.gpkg", "--strata", "map"))
        assert found["overall_accuracy"]["estimate"] is not None
        assert found["overall_accuracy"]["se"] is None
        assert found["overall_accuracy"]["ci95"] is None
        assert "single reference unit in water" in found["sampling"]["words"]

    def test_duplicates_are_counted_once(self, folder, said):
        points(folder / "twice.gpkg", [100, 100, 120], [100, 100, 140], ["forest", "forest", "field"])
        found = said(*assess(folder, "twice.gpkg", field="cover"))["sampling"]
        assert found["units"] == 2
        assert found["excluded"]["by_reason"] == {"in one pixel with another unit": 1}

    def test_another_crs_changes_nothing(self, folder, said):
        frame = geopandas.read_file(folder / "sample_filled.gpkg", layer="sample")
        frame.to_crs("EPSG:4326").to_file(folder / "degrees.geojson")
        here, there = (
            said(*assess(folder, name, *design_of(folder, "sample")))
            for name in ("sample_filled.gpkg", "degrees.geojson")
        )
        assert here["per_class"] == there["per_class"]

    def test_files_and_fields_that_are_not_there(self, folder, refused):
        refused(assess(folder, "nowhere.gpkg"), "nowhere.gpkg", "no such file")
        refused(assess(folder, "sample_filled.gpkg", field="klass"), "no field 'klass'", "reference")
        refused(assess(folder, "sample_filled.gpkg", field=None), "name the field")
        refused(["assess", folder / "map.tif"], "--reference")


@pytest.fixture(scope="module")
def public(folder):
    """CORINE-like maps of the same land: 16 bits, other codes, one class of two; and Dynamic World's class 0."""
    truth = patchy().astype(np.int32)
    corine = np.select([truth == 10, truth == 20, truth == 30], [312, 512, 211], -128)
    corine[truth == 10] = np.where(np.arange((truth == 10).sum()) % 2, 311, 312)
    dynamic = np.select([truth == 10, truth == 20, truth == 30], [1, 0, 4], 255).astype(np.uint8)
    for name, values, nodata in (("corine", corine.astype(np.int16), -128), ("dynamic", dynamic, None)):
        with rasterio.open(folder / "truth.tif") as source:
            profile = source.profile | {"dtype": values.dtype, "nodata": nodata}
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as target:
            target.write(values, 1)
    (folder / "corine.csv").write_text("source,target\n311,forest\n312,forest\n512,water\n211,field\n")
    (folder / "dynamic.csv").write_text("source,target\n1,forest\n0,water\n4,field\n")
    return folder


class TestPublicMaps:
    @pytest.mark.parametrize("name", ["corine", "dynamic"])
    def test_as_reference_of_any_integer_type(self, public, said, name):
        theirs = said(*assess(public, f"{name}.tif", "--crosswalk", public / f"{name}.csv", field=None))
        ours = said(*assess(public, "truth.tif", field=None))
        assert theirs["error_matrix"] == ours["error_matrix"]
        assert theirs["per_class"] == ours["per_class"]

    @pytest.mark.parametrize("name", ["corine", "dynamic"])
    def test_beside_a_map_on_one_sample(self, public, said, name):
        sample = ["--reference", public / "sample_filled.gpkg", "--field", "reference", *design_of(public, "sample")]
        found = said(
            "compare", public / "map.tif", public / f"{name}.tif", *sample, "--second-crosswalk", public / f"{name}.csv"
        )
        # The public map is the truth here.
        assert found["second"]["overall_accuracy"]["estimate"] == pytest.approx(1.0)
        assert (
            found["first"]["overall_accuracy"]["estimate"]
            == said(*assess(public, "sample_filled.gpkg", *sample[4:]))["overall_accuracy"]["estimate"]
        )
        assert found["difference"]["ci95"][1] < 0
        assert found["mcnemar"]["only_first"] == 0

    def test_values_without_a_target_are_named(self, public, refused):
        refused(assess(public, "corine.tif", field=None), "corine.tif", "211, 311, 312, 512", "crosswalk")
        sample = ["--reference", public / "sample_filled.gpkg", "--field", "reference"]
        refused(["compare", public / "map.tif", public / "corine.tif", *sample], "corine.tif", "what its codes mean")
        refused(
            ["compare", public / "map.tif", public / "corine.tif", *sample, "--second-crosswalk", "esa_worldcover"],
            "does not say what its values mean", "312",
        )  # fmt: skip

    def test_tables_that_come_along_can_be_edited(self, public, said):
        found = said("crosswalk", "esa_worldcover", "-o", public / "walk.csv", "--map", public / "map.tif")
        text = (public / "walk.csv").read_text()
        assert "forest, water, field" in text
        assert "80,Permanent water bodies,water" in text
        assert "Tree cover" in found["without_target"]
        assert "10,Tree cover,\n" in text


def test_what_only_one_map_has_a_class_for_is_said(folder, capsys, tmp_path):
    less = patchy()
    less[100:110] = 0
    after = write_map(tmp_path / "less.tif", less)
    assert main(["change", str(folder / "truth.tif"), str(after), "-o", str(tmp_path / "change.tif")]) == 0
    assert "30.0 ha have no class in one of the maps" in capsys.readouterr().out
    assert main(["change", str(after), str(after), "-o", str(tmp_path / "none.tif")]) == 0
    assert "no class in" not in capsys.readouterr().out


def test_change_is_estimated_from_a_sample_of_the_from_to_map(folder, said):
    """The way from two maps to areas of change with intervals."""
    before, after = folder / "truth.tif", folder / "map.tif"
    found = said("change", before, after, "-o", folder / "change.tif")
    assert sum(item["pixels"] for item in found["transitions"]) == (patchy() > 0).sum()
    said("design", folder / "change.tif", "--size", 200, "-o", folder / "moved.gpkg")
    frame = geopandas.read_file(folder / "moved.gpkg", layer="sample")
    # What an interpreter finds: nothing changed, all change is error of the later map.
    with rasterio.open(before) as source:
        codes = [int(v[0]) for v in source.sample(zip(frame.geometry.x, frame.geometry.y, strict=True))]
    frame["reference"] = [f"stable {NAME[code]}" for code in codes]
    frame.to_file(folder / "moved_filled.gpkg", layer="sample")
    result = said(
        "assess", folder / "change.tif", "--reference", folder / "moved_filled.gpkg", "--field", "reference",
        "--design", folder / "moved_design.json",
    )  # fmt: skip
    naive = sum(item["area_ha"] for item in found["transitions"] if item["from"] != item["to"])
    estimated = sum(
        item["area_ha"]["estimate"] for name, item in result["per_class"].items() if not name.startswith("stable")
    )
    assert naive > 50
    assert estimated == 0


class TestTwoMapsFromFewUnits:
    @pytest.fixture
    def pair(self, folder, tmp_path):
        """A worse second map, and its sample of the places where the two differ, interpreted."""
        write_map(tmp_path / "worse.tif", spoil(patchy(), seed=4, share=0.5))
        named = [str(folder / "map.tif"), str(tmp_path / "worse.tif")]
        assert main(["design", "--for", "compare", *named, "-o", str(tmp_path / "s.gpkg"), "--size", "120", "-q"]) == 0
        fill_in(tmp_path / "s.gpkg", tmp_path / "filled.gpkg", truth=folder / "truth.tif")
        sample = ["--reference", tmp_path / "filled.gpkg", "--field", "reference"]
        return named, [*sample, "--design", tmp_path / "s_design.json"]

    def test_the_better_map_is_named(self, pair, said):
        found = said("compare", *pair[0], "--sequential", *pair[1])
        assert found["verdict"] == "first"
        assert "map.tif is better (p < 0.05)" in found["summary"]

    def test_one_map_or_another_purpose_is_refused(self, folder, tmp_path, capsys):
        for wrong in (["--for", "compare"], ["--for", "fun"]):
            assert main(["design", *wrong, str(folder / "map.tif"), "-o", str(tmp_path / "x.gpkg")]) == 2
            assert "the two maps to compare" in capsys.readouterr().err


class TestZoneAndAssistance:
    @pytest.fixture
    def sure(self, folder, tmp_path):
        """``map.tif`` as ``m_lc.tif`` with a confidence beside it."""
        (tmp_path / "m_lc.tif").write_bytes((folder / "map.tif").read_bytes())
        with rasterio.open(folder / "map.tif") as source, rasterio.open(folder / "truth.tif") as truth:
            right, profile = source.read(1) == truth.read(1), source.profile | {"nodata": 255}
        with rasterio.open(tmp_path / "m_conf.tif", "w", **profile) as target:
            target.write(np.where(right, 90, 40).astype(np.uint8), 1)
        return tmp_path

    def test_assistance_says_what_it_gains(self, folder, sure, said):
        sample = ["--reference", folder / "sample_filled.gpkg", "--field", "reference", *design_of(folder, "sample")]
        plain = said("assess", sure / "m_lc.tif", *sample)
        helped = said("assess", sure / "m_lc.tif", *sample, "--assist", "confidence")
        assert helped["overall_accuracy"]["se"] < plain["overall_accuracy"]["se"]
        assert "narrower" in helped["sampling"]["words"]

    def test_the_zone_is_written_and_said(self, folder, sure, said):
        sample = ["--reference", folder / "sample_filled.gpkg", "--field", "reference", *design_of(folder, "sample")]
        found = said("zone", sure / "m_lc.tif", *sample, "-o", sure / "zone.tif")
        assert 40 < found["threshold"] <= 90
        assert "at most 5 % is wrong" in found["summary"]
        with rasterio.open(sure / "zone.tif") as mask:
            assert set(np.unique(mask.read(1))) == {0, 1, 255}


def test_a_reference_of_one_class_is_said_to_judge_nothing_else(folder, said, tmp_path):
    frame = geopandas.read_file(folder / "sample_filled.gpkg", layer="sample")
    name = frame["reference"].iloc[0]
    frame[frame["reference"] == name][["reference", "geometry"]].to_file(tmp_path / "one.gpkg")
    found = said("assess", folder / "map.tif", "--reference", tmp_path / "one.gpkg", "--field", "reference")
    (line,) = (text for text in found["warnings"] if "user's accuracy says nothing" in text)
    assert f"all units are {name}: what is mapped as it elsewhere is not looked at" in line
    every = ("--reference", folder / "sample_filled.gpkg", "--field", "reference")
    assert not said("assess", folder / "map.tif", *every).get("warnings")
