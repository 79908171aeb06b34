"""Folders of chips from the command line: configuration, model, figures, and a table of other chips."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import yaml

from pipeline.cli.entry import main
from pipeline.config import is_chip_job
from pipeline.diagnostics.scoring import score_of
from pipeline.errors import ConfigError, LabelError, LabelWarning
from pipeline.report.data import ReportData
from pipeline.settings import checked
from pipeline.training.chip_files import chips_from_folders
from pipeline.workflow.chip_job import ChipJob, parts_of, set_aside_blocks
from tests.training.test_chip_head import write_folders


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A configuration that init wrote and run has done; gives its folder."""
    folder = tmp_path_factory.mktemp("job")
    write_folders(folder / "chips", count=10)
    config = folder / "chips.yaml"
    assert main(["init", "--chips", str(folder / "chips"), "-o", str(config), "--quiet"]) == 0
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["training"] |= {"experts": {"trees": 4, "soft_pixels": 200}, "pixels": {"steps": 60, "batch": 64}}
    settings["folder"] |= {"block_m": 1e7}  # the fake chips lie in one place
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert main(["run", str(config), "--quiet"]) == 0
    return folder


def two_scores():
    names = ("bright", "dark")
    return tuple(score_of(method, np.array([[5, 1], [0, 6]]), names=names) for method in ("network", "forest"))


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_run_leaves_a_model_figures_and_a_table(done):
    run = done / "chips-run"
    figures = json.loads((run / "accuracy.json").read_text(encoding="utf-8"))
    assert figures["tested"] + figures["learned"] == 20
    assert 0 < figures["tested"] < 10
    assert figures["overall_accuracy"] > 0.9
    assert "line" in figures["context"]
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in ("Classes of whole chips", "Accuracy on the test chips", "forest (means and deviations)", "confusion"):
        assert words in page
    assert "test polygons" not in page
    assert figures["baselines"]["forest (means and deviations)"]["overall_accuracy"] > 0.9
    tested = rows(run / "test_chips.csv")
    assert len(tested) == figures["tested"]
    right = np.mean([row["class"] == row["reference"] for row in tested])
    assert right == pytest.approx(figures["overall_accuracy"])
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in tested)


def test_the_report_shows_the_chips_that_are_surely_wrong(tmp_path):
    from pipeline.workflow.chip_job import _judged

    chips = chips_from_folders(write_folders(tmp_path, count=6))
    sure = np.full((12, 2), 0.5, np.float32)
    sure[np.arange(12), chips.index] = 0.6
    sure[3] = np.where(np.arange(2) == chips.index[3], 0.1, 0.9)
    found = _judged(ReportData(title="t", scheme=chips.scheme), chips, sure / sure.sum(1, keepdims=True), two_scores())
    (shown,) = found.wrong_chips
    assert shown.name == chips.files[3].name
    assert (shown.reference, shown.confidence) == (chips.scheme.names[chips.index[3]], pytest.approx(0.9))
    assert shown.image.shape == (16, 16, 3)
    assert 0 <= shown.image.min() <= shown.image.max() <= 1


def test_confidence_is_that_of_chips_held_out(done):
    from pipeline.model.bundle import load_bundle

    bundle = load_bundle(done / "chips-run" / "model" / "model.safetensors")
    note = bundle.provenance["calibration"]
    if isinstance(note, str):  # every chip held out was right
        assert note.startswith("none: every")
    else:
        assert bundle.temperature == note["temperature"]


def test_a_chip_model_is_as_sure_as_chips_held_out_say(done):
    from pipeline.diagnostics.confidence import calibrate_chips
    from pipeline.experts.mixture import OutOfFold
    from pipeline.model.bundle import load_bundle

    bundle = replace(load_bundle(done / "chips-run" / "model" / "model.safetensors"), temperature=1.0)
    rng = np.random.default_rng(0)
    index = rng.integers(0, 2, 400).astype(np.uint8)
    said = np.where(rng.random(400) < 0.7, index, 1 - index)  # sure of 98 %, right in 70 %
    sure = np.where(np.arange(2) == said[:, None], 0.98, 0.02).astype(np.float32)
    found = calibrate_chips(bundle, OutOfFold(sure, index, np.arange(400, dtype=np.int32)))
    again = np.array([0.98, 0.02]) ** (1 / found.temperature)
    assert abs(again[0] / again.sum() - 0.7) < 0.06
    assert calibrate_chips(bundle, None).temperature == 1.0


def test_predict_gives_every_chip_of_a_folder_a_class(done, tmp_path):
    model, table = done / "chips-run" / "model" / "model.safetensors", tmp_path / "table.csv"
    options = ["predict", "--model", str(model), "--chips", str(done / "chips"), "-o", str(table), "--quiet"]
    assert main(options) == 0
    found = rows(table)
    assert [set(row) for row in found] == [{"file", "class", "confidence"}] * 20
    assert np.mean([row["file"].startswith(row["class"] + "/") for row in found]) > 0.9
    assert main(options) == 2
    assert main([*options, "--overwrite"]) == 0


def test_chips_in_another_unit_are_refused(done, tmp_path, capsys):
    for path in (done / "chips").rglob("*.tif"):
        target = tmp_path / "other" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(path) as file:
            profile, values = file.profile, file.read()
            names = file.descriptions
        with rasterio.open(target, "w", **profile) as out:
            out.write(values * 100)
            out.descriptions = names
    model = done / "chips-run" / "model" / "model.safetensors"
    found = main(["predict", "--model", str(model), "--chips", str(tmp_path / "other"), "-o", str(tmp_path / "t.csv")])
    assert found == 2
    assert "times larger than those the model was trained on" in capsys.readouterr().err
    assert not (tmp_path / "t.csv").exists()


def test_a_model_of_chips_says_how_it_was_judged(done, capsys):
    assert main(["model", "show", str(done / "chips-run" / "model" / "model.safetensors")]) == 0
    tested = json.loads((done / "chips-run" / "accuracy.json").read_text(encoding="utf-8"))["tested"]
    assert f"on {tested} test chips (no probability sample)" in capsys.readouterr().out


def test_a_name_without_csv_is_the_folder_of_the_table(done, tmp_path, capsys):
    model, chips = done / "chips-run" / "model" / "model.safetensors", done / "chips"
    command = ["predict", "--model", str(model), "--chips", str(chips), "--quiet", "-o"]
    assert main([*command, str(tmp_path / "new" / "result")]) == 0
    assert [path.name for path in (tmp_path / "new" / "result").iterdir()] == ["chips.csv"]
    assert len(rows(tmp_path / "new" / "result" / "chips.csv")) == 20
    assert main([*command, str(tmp_path / "new" / "result")]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    (tmp_path / "plain").write_text("mine", encoding="utf-8")
    assert main([*command, str(tmp_path / "plain"), "--overwrite"]) == 2
    assert "not a folder for the table of chips" in capsys.readouterr().err
    assert (tmp_path / "plain").read_text(encoding="utf-8") == "mine"


def test_a_second_run_does_not_replace_the_model(done, capsys):
    assert main(["run", str(done / "chips.yaml")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_folders_train_and_test_are_taken_as_they_are(tmp_path):
    for part, count in (("train", 6), ("test", 3)):
        write_folders(tmp_path / part, count=count)
    plain = {"folder": {"path": str(tmp_path)}, "training": {"head": "chip"}}
    parts = parts_of(checked(ChipJob, plain, path=tmp_path / "c.yaml"))
    assert (len(parts.learned), len(parts.tested)) == (12, 6)


def test_chips_of_one_block_are_tested_together(tmp_path):
    chips = chips_from_folders(write_folders(tmp_path, count=12))
    blocks = np.repeat(np.arange(6), 4)
    moved = np.stack([blocks * 1000.0 + 10, np.zeros(24)], axis=1)
    tested = set_aside_blocks(replace(chips, position_m=moved), share=0.3, block_m=1000, seed=0)
    assert 0 < tested.sum() < 24
    assert all(len(set(tested[blocks == block])) == 1 for block in range(6))
    assert set(chips.index[tested]) == set(chips.index[~tested]) == {0, 1}


def test_another_head_is_refused_in_the_words_of_the_file(tmp_path):
    plain = {"folder": {"path": str(tmp_path)}, "training": {"head": "unet"}}
    with pytest.raises(ConfigError, match="head: chip"):
        checked(ChipJob, plain, path=tmp_path / "c.yaml")


def test_init_wants_scenes_or_chips(tmp_path, capsys):
    assert main(["init", "-o", str(tmp_path / "c.yaml")]) == 2
    assert "or --chips" in capsys.readouterr().err


def test_a_job_of_scenes_is_not_one_of_chips(tmp_path):
    (tmp_path / "c.yaml").write_text("scenes: []", encoding="utf-8")
    assert not is_chip_job(tmp_path / "c.yaml")


def test_set_changes_a_job_of_chips(done, tmp_path, capsys):
    assert main(["run", str(done / "chips.yaml"), "--set", "training.head=unet"]) == 2
    assert "head: chip" in capsys.readouterr().err


def test_init_keeps_the_nodata_of_chips(tmp_path):
    write_folders(tmp_path / "chips", count=2)
    config = tmp_path / "chips.yaml"
    options = ["--chips", str(tmp_path / "chips"), "--nodata", "none", "-o", str(config), "--quiet"]
    assert main(["init", *options]) == 0
    assert checked(ChipJob, yaml.safe_load(config.read_text(encoding="utf-8")), path=config).options.nodata == "none"


@pytest.mark.parametrize(
    "command",
    [
        ["run", "CONFIG", "--verify"],
        ["init", "--chips", "chips", "--field", "class"],
        ["predict", "--model", "m", "--chips", "chips", "--set", "map.engine=torch"],
        ["predict", "--model", "m", "--chips", "chips", "--scene", "a.tif"],
        ["predict", "CONFIG", "--model", "m", "--chips", "chips"],
    ],
    ids=" ".join,
)
def test_options_that_chips_do_not_take_are_refused(done, command, capsys):
    assert main([str(done / "chips.yaml") if part == "CONFIG" else part for part in command]) == 2
    assert "leave it out" in capsys.readouterr().err


def test_a_block_in_both_parts_is_told(tmp_path):
    write_folders(tmp_path, count=6)
    plain = {"folder": {"path": str(tmp_path), "block_m": 1e7}, "training": {"head": "chip"}}
    job = checked(ChipJob, plain, path=tmp_path / "c.yaml")
    with pytest.warns(LabelWarning, match="chips of one block in both parts"):
        parts = parts_of(job)
    assert "1 block of" in parts.how


@pytest.mark.parametrize(
    ("names", "said"), [(("train", "val"), "train and val"), (("Train", "Test"), "Train and Test")]
)
def test_folders_tell_apart_what_is_learned_and_tested(tmp_path, names, said):
    for name, count in zip(names, (6, 3), strict=True):
        write_folders(tmp_path / "chips" / name, count=count)
    config = tmp_path / "chips.yaml"
    assert main(["init", "--chips", str(tmp_path / "chips"), "-o", str(config), "--quiet"]) == 0
    parts = parts_of(checked(ChipJob, yaml.safe_load(config.read_text(encoding="utf-8")), path=config))
    assert (len(parts.learned), len(parts.tested or ()), parts.how) == (12, 6, f"folders {said}")


def test_chips_to_learn_from_alone_are_set_aside_by_blocks(tmp_path):
    write_folders(tmp_path / "chips" / "train", count=6)
    settings = {"folder": {"path": str(tmp_path / "chips"), "test": 0.0}}
    parts = parts_of(checked(ChipJob, settings))
    assert (len(parts.learned), parts.tested) == (12, None)


def test_init_says_what_run_would_and_keeps_the_chips(tmp_path, capsys):
    folder = write_folders(tmp_path / "chips", count=3)
    chips = sorted(folder.rglob("*.tif"))
    before = {path: path.read_bytes() for path in chips}
    init = ["init", "--chips", str(folder), "--overwrite"]
    for words in (["-o", str(chips[0])], ["--bands", "a,b,c", "-o", str(tmp_path / "c.yaml")]):
        assert main([*init, *words]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "c.yaml").exists()
    assert all(path.read_bytes() == data for path, data in before.items())
    config = str(tmp_path / "c.yaml")
    assert main([*init, "-o", config]) == main(["check", config, "--set", "folder.block_m=1"]) == 0
    assert "no error found; " in capsys.readouterr().out
    chips[1].write_bytes(b"junk")
    for command in ("check", "run", "crossval"):
        assert main([command, config, "--quiet"]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    chips[0].write_bytes(b"junk")
    assert main([*init, "-o", config]) == 2


# What is said of chips whose bands have no names, by init and by check.
UNNAMED = "what band1, band2, band3, band4 measure is not known: {0}bands with common names"
NONE_FITS = "no network with context: no pretrained weights at hand fit (landcover_resnet18: the scene has 0 of its"


@pytest.fixture(scope="module")
def unnamed(tmp_path_factory):
    """A folder of chips of four bands of counts without names."""
    folder = tmp_path_factory.mktemp("unnamed") / "chips"
    write_folders(folder, bands=(None,) * 4, count=70)
    for path in folder.rglob("*.tif"):
        with rasterio.open(path) as file:
            profile, values = file.profile, file.read()
        with rasterio.open(path, "w", **profile | {"dtype": "uint16"}) as out:
            out.write(np.clip(values * 1e4, 1, None).astype(np.uint16))
    return folder


def test_init_and_check_say_what_nameless_bands_cost(unnamed, tmp_path, capsys):
    config = str(tmp_path / "c.yaml")
    assert main(["init", "--chips", str(unnamed), "-o", config]) == 0
    said = capsys.readouterr().out
    assert UNNAMED.format("--") in said
    assert "pretrained weights" in said
    text = (tmp_path / "c.yaml").read_text(encoding="utf-8")
    for key in (
        "#bands: [blue, green, red, nir]",
        "#scale: 0.0001",
        "#offset: 0.0",
        "#nodata: 0",
        "#sensor: sentinel-2",
    ):
        assert f"\n  {key}\n" in text
    assert main(["check", config, "--set", "folder.block_m=1"]) == 0
    said = capsys.readouterr().out
    assert UNNAMED.format("folder.") in said
    assert NONE_FITS in said


def test_check_names_the_encoder_of_chips_that_say_all(unnamed, tmp_path, capsys):
    config = str(tmp_path / "c.yaml")
    said = ["--bands", "blue,green,red,nir", "--scale", "0.0001", "--sensor", "sentinel-2"]
    assert main(["init", "--chips", str(unnamed), "-o", config, *said]) == 0
    assert "not known" not in capsys.readouterr().out
    assert main(["check", config, "--set", "folder.block_m=1"]) == 0
    found = capsys.readouterr().out
    assert "licence" in found
    assert "experts (100 trees each); a network of chip statistics (1500 steps); an encoder, " in found
    assert NONE_FITS not in found


def test_counts_of_named_bands_are_said_for_chips(unnamed, tmp_path, capsys):
    assert main(["init", "--chips", str(unnamed), "-o", str(tmp_path / "c.yaml"), "--bands", "blue,green,red,nir"]) == 0
    assert "values are counts as stored: --scale (0.0001" in capsys.readouterr().out


def test_check_refuses_chips_with_nothing_to_train(unnamed, tmp_path, capsys):
    config = str(tmp_path / "c.yaml")
    assert main(["init", "--chips", str(unnamed), "-o", config, "--quiet"]) == 0
    assert main(["check", config, "--set", "training.pixels.enabled=false"]) == 2
    assert "nothing to train" in capsys.readouterr().err


def test_a_class_of_one_chip_is_said(tmp_path):
    plain = {"folder": {"path": str(write_folders(tmp_path / "chips", count=1))}, "training": {"head": "chip"}}
    with pytest.raises(LabelError, match="without a chip to learn from"):
        parts_of(checked(ChipJob, plain, path=tmp_path / "c.yaml"))
