"""A frozen pretrained encoder: what it sees of pixels and chips, who admits it, and how it is fine-tuned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.experts.experts import EXPERTS, PixelTable, experts_for, linear_scores, probabilities_of
from pipeline.experts.mixture import Admission, fit_mixture
from pipeline.experts.settings import ENOUGH_POLYGONS, Deadline
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.pretrained import COUNTS
from pipeline.model.records import OWN_NAME
from pipeline.model.spec import NetworkSpec
from pipeline.model.surroundings import surroundings
from pipeline.model.weights import save_encoder
from pipeline.splits.split import Part
from pipeline.training.batches import ContextSet
from pipeline.training.chip_head import start_head
from pipeline.training.context import Learner, job_key, train_context
from pipeline.training.crossval import predict_pixels
from pipeline.training.encoder_features import FEATURES, FrozenFeatures, frozen_features
from pipeline.training.networks import build_networks, lift_class, start_columns
from pipeline.training.result import context_note
from pipeline.training.settings import STEP_KEYS, UNJUDGED_SHARE, TrainingSettings
from pipeline.training.training_set import fit_probe
from tests.training.encoders import BANDS, PREPROCESS, SETTINGS, UNITS, chips, shipped_encoder
from tests.training.worlds import TINY, changed, fit, make_job

CUT = "network at step 34 of 300"


def with_hole(x):
    """Chips without values in a corner and in the middle, as under nodata and clouds."""
    x[..., :5, :9], x[..., 10:14, 10:15] = 0.0, 0.0
    return x


@pytest.fixture(scope="module")
def frozen():
    return shipped_encoder()


def test_every_pixel_has_a_column_of_all_strides(frozen):
    x, _ = chips(2, 22)
    columns = frozen.of_pixels(x)
    assert columns.shape == (2, frozen.count, 22, 22)
    assert frozen.count == sum(frozen.encoders[0].channels)
    assert torch.isfinite(columns).all()


def test_a_column_at_the_first_stride_is_the_feature_there(frozen):
    x, valid = chips(1, 16)
    feature = frozen.encoders[0].features(x * torch.tensor(PREPROCESS.std)[:, None, None]
                                      + torch.tensor(PREPROCESS.mean)[:, None, None], valid)[0]  # fmt: skip
    stride, count = frozen.encoders[0].strides[0], frozen.encoders[0].channels[0]
    columns = frozen.of_pixels(x)[:, :count]
    means = torch.nn.functional.avg_pool2d(columns, stride)[..., 1:-1, 1:-1]
    assert torch.corrcoef(torch.stack([means.flatten(), feature[..., 1:-1, 1:-1].flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("branches", [1, 2])
def test_moments_of_a_chip_are_those_of_the_network(frozen, branches):
    own = FrozenFeatures(frozen.encoders * branches, PREPROCESS)
    x = with_hole(chips(4, 22)[0])
    head = changed(TrainingSettings(), {"head": "chip"})
    network = build_networks(head, classes=3, chip_px=22, preprocess=PREPROCESS, frozen=own, units=UNITS).context
    assert torch.allclose(network.eval().moments(x).flatten(1), own.of_chips(x), atol=1e-4, rtol=1e-4)


def table(polygons, *, useful, seed=0):
    """Surroundings tell trees a little and a discriminant nothing; encoder features tell all or nothing."""
    rng = np.random.default_rng(seed)
    polygon = np.repeat(np.arange(polygons, dtype=np.int32), 6)
    index = (polygon % 2).astype(np.uint8)
    noise = rng.normal(0, 1, (len(index), 10)) * (1 + 0.7 * index[:, None])
    own = rng.normal(0, 1, (polygons, 4))[polygon] + rng.normal(0, 0.3, (len(index), 4))
    features = np.hstack([noise, own + (3.0 * index[:, None] if useful else 0.0)]).astype(np.float32)
    return PixelTable(features, index, polygon, 2, 4)


@pytest.mark.parametrize("useful", [True, False])
def test_held_out_polygons_admit_an_encoder_that_helps(useful):
    rows = table(150, useful=useful)
    free = np.full(150, -1, dtype=np.int32)
    mixture = fit_mixture(rows, classes=2, group_of=free, trees=4, seed=0)
    admission = mixture.admission
    assert admission is not None
    assert (admission.share > 0) is useful
    assert (admission.gain > 0 and admission.saved > admission.error) is useful
    plain, encoder = mixture.parts()
    if not useful:
        assert encoder is None
        return
    whole = (1 - admission.share) * plain.predict(rows.features) + admission.share * encoder.predict(rows.features)
    assert np.allclose(whole, mixture.predict(rows.features), atol=1e-5)
    # The mixture without the encoder needs no features of it.
    assert np.allclose(plain.predict(rows.features[:, :10]), plain.predict(rows.features))


def test_few_polygons_do_not_judge_an_encoder():
    few = experts_for(EXPERTS, polygons=ENOUGH_POLYGONS - 1, encoder=True)
    assert few == experts_for(EXPERTS, polygons=ENOUGH_POLYGONS - 1)
    many = experts_for(EXPERTS, polygons=ENOUGH_POLYGONS, encoder=True)
    assert [expert.encoder for expert in many].count(True) == 1


def test_an_encoder_is_fine_tuned_from_the_probe_on(frozen, tmp_path):
    networks = build_networks(SETTINGS, classes=3, chip_px=24, preprocess=PREPROCESS, frozen=frozen, units=UNITS)
    x, _ = chips(4, 24)
    index = torch.randint(0, 3, (4, 24, 24), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    flat = torch.full((4, 3, 24, 24), 1 / 3, dtype=torch.float16)
    learned = ContextSet(x, index, torch.ones(4, 24, 24), flat, torch.ones(4, 24, 24).bool(), torch.ones(4).double())
    start = {name: value.clone() for name, value in networks.context.encoder.state_dict().items()}
    for kept in (True, False):
        network = build_networks(
            SETTINGS, classes=3, chip_px=24, preprocess=PREPROCESS, frozen=frozen, units=UNITS
        ).context

        named = {"context.weights": "named", "context.encoder": "resnet18"}
        settings = changed(SETTINGS, named | {"context.frozen": kept})
        train_context(network, learned, None, settings=settings, folder=tmp_path / str(kept), deadline=Deadline())
        now = network.encoder.state_dict()
        weights = [name for name in start if start[name].ndim > 1]
        assert all(torch.equal(now[name], start[name]) for name in weights) is kept
        norms = [name for name in start if "running" in name]
        assert all(torch.equal(now[name], start[name]) for name in norms)


@pytest.mark.parametrize("known", [(0, 1, 2, 3), (0, 3, 2), (2, 1), (1,)])
def test_a_network_of_columns_gives_what_the_probe_gives(frozen, known):
    x = with_hole(chips(4, 22, seed=2)[0])
    layers = torch.cat([surroundings(x), frozen.of_pixels(x)], dim=1)
    features = layers.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    index = np.array(known, dtype=np.uint8)[np.random.default_rng(0).integers(0, len(known), len(features))]
    polygon = np.arange(len(index), dtype=np.int32) // 16
    table = PixelTable(features, index, polygon, len(BANDS), frozen.count)
    probe = fit_probe(table, np.full(polygon.max() + 1, -1), classes=4, settings=SETTINGS)
    network = build_networks(SETTINGS, classes=4, chip_px=22, preprocess=PREPROCESS, frozen=frozen, units=UNITS).context
    start_columns(network, *linear_scores(probe, classes=4))
    with torch.inference_mode():
        found = network.eval()(x).softmax(1).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    assert np.allclose(found, probabilities_of(probe, features, classes=4), atol=1e-4)


@pytest.mark.parametrize("kept", [True, False])
def test_a_job_with_an_encoder_alone_starts_as_the_probe(tmp_path, kept):
    scene, split, scheme = make_job(tmp_path, noise=("green", "blue"))
    changes = {"pixels.enabled": False, "context.weights": OWN_NAME, "context.share": None}
    steps = {"context.steps": 300, "context.batch": 8} if kept else {"context.steps": 2}
    settings = changed(TINY, changes | steps | {"context.frozen": kept})
    result = fit([scene], split, scheme, settings=settings, folder=tmp_path / "run")
    assert bool(result.history) is not kept  # the discriminant needs no steps
    (member,) = result.bundle.members
    assert member.spec.columns
    test = split.pixels(scene.pixels, Part.TEST)
    assert (predict_pixels(result.bundle, scene.source, test) == test.code).mean() > 0.95


def test_keys_of_steps_change_nothing_of_a_kept_encoder(tmp_path):
    scene, split, scheme = make_job(tmp_path, noise=("green", "blue"))
    plain = changed(TrainingSettings(), {"experts.trees": 2, "experts.soft_pixels": 200, "pixels.enabled": False,
                                         "context.weights": OWN_NAME, "context.frozen": True})  # fmt: skip
    other = {"steps": 3, "batch": 3, "lr": 1.0, "weight_decay": 0.9, "dropout": 0.9, "smoothing": 0.9}
    other |= {"soft_weight": 0.0, "patience": 1, "devices": 2, "nodes": 2}
    assert set(other) == set(STEP_KEYS)
    unseen = plain.model_copy(update={"context": plain.context.model_copy(update=other)})
    one, two = (
        fit([scene], split, scheme, settings=settings, folder=tmp_path / name).bundle.members[0].state_dict()
        for name, settings in (("plain", plain), ("other", unseen))
    )
    assert all(torch.allclose(one[name].double(), two[name].double(), atol=1e-4) for name in one)


def test_chips_not_done_in_time_have_no_features(frozen):
    gone = Deadline(0.0)
    x, _ = chips(3)
    assert frozen.of_chips(x, deadline=gone).shape == (3, 0)
    assert gone.cut == [FEATURES]
    assert frozen.of_chips(x, deadline=Deadline()).shape[1] > 0


def test_a_job_is_the_same_however_cores_add_up_the_probe(frozen):
    network = build_networks(SETTINGS, classes=3, chip_px=24, preprocess=PREPROCESS, frozen=frozen, units=UNITS).context
    x, _ = chips(2, 24)
    none = torch.zeros(2, 24, 24)
    learned = ContextSet(x, none.to(torch.uint8), none, none[:, None].half(), none.bool(), torch.ones(2).double())

    def key():
        return job_key(Learner(network, SETTINGS.context, seed=0), learned, judged=None, settings=SETTINGS)

    before = key()
    with torch.no_grad():
        network.head.weight += 1e-6
        network.columns.mix[0].weight += 1e-6
    assert key() == before
    with torch.no_grad():
        next(network.encoder.parameters()).add_(1e-3)
    assert key() != before


@pytest.mark.parametrize("known", [(0, 1, 2, 3), (0, 3, 2), (2, 1), (1,)])
def test_the_head_of_a_chip_network_starts_as_the_linear_probe(frozen, known):
    x, _ = chips(40, 24, seed=3)
    index = np.array(known, dtype=np.uint8)[np.arange(40) % len(known)]
    x += torch.from_numpy(index)[:, None, None, None] * torch.tensor([0.5, 0.0, -0.5, 1.0])[None, :, None, None]
    head = changed(TrainingSettings(), {"head": "chip"})
    network = build_networks(head, classes=4, chip_px=24, preprocess=PREPROCESS, frozen=frozen, units=UNITS).context
    start_head(network, x, index)
    with torch.inference_mode():
        before = network.eval()(x)
    assert (before.argmax(1).numpy() == index).mean() > 0.9
    start_head(network, x, index, temperature=4.0)
    with torch.inference_mode():
        after = network.eval()(x)
    seen = list(set(known))
    shown = [score[:, seen] - score[:, seen].mean(1, keepdim=True) for score in (before, after)]
    assert (shown[0] - 4.0 * shown[1]).abs().max() <= 0.02 * shown[0].abs().max()


@pytest.mark.parametrize(
    ("changes", "polygons", "cut", "why"),
    [
        ({"experts.enabled": False}, 300, (), "training.experts is off"),
        ({}, 20, (), "20 polygons are too few"),
        ({}, 300, ("experts", CUT), "judged it: training.time_limit_s ended first"),
        ({}, 300, (CUT,), "judged it: too few groups"),
    ],
)
def test_an_encoder_that_nothing_judged_is_left_out_and_said(frozen, changes, polygons, cut, why):
    settings = changed(SETTINGS, {"context.weights": "auto", **changes})
    networks = build_networks(settings, classes=3, chip_px=24, preprocess=PREPROCESS, frozen=frozen, units=UNITS)
    left = networks.judged(None, settings, frozen=frozen)
    assert left.context is None
    assert why in context_note(left, None, frozen, settings=settings, polygons=polygons, cut=cut)["line"]


KEPT = {"context.frozen": True, "context.steps": 300, "context.batch": 8}
BEFORE = "before it was fine-tuned"
GAINED = "gained +0.017 macro-F1 on held-out polygons"


class Judged:
    """A mixture that held-out polygons have judged."""

    admission = Admission(0.27, 0.017, 0.02, 0.01, 120)


@pytest.mark.parametrize(
    ("changes", "cut", "ending"),
    [
        ({}, (), f"fine-tuned on 300 polygons, share 0.27, {GAINED} {BEFORE}"),
        (KEPT, (), f"frozen on 300 polygons, share 0.27, {GAINED}"),
        (
            {},
            ("experts", CUT),
            f"fine-tuned on 300 polygons until the time limit ended ({CUT}), share 0.27, {GAINED} {BEFORE}",
        ),
        ({"pixels.enabled": False}, (), "fine-tuned on 300 polygons, alone (training.pixels is off)"),
    ],
)  # fmt: skip
def test_one_line_says_what_learned_and_what_of(frozen, changes, cut, ending):
    settings = changed(SETTINGS, {"context.weights": "auto", **changes})
    networks = build_networks(settings, classes=3, chip_px=24, preprocess=PREPROCESS, frozen=frozen, units=UNITS)
    networks = networks.judged(Judged(), settings, frozen=frozen)
    line = context_note(networks, Judged(), frozen, settings=settings, polygons=300, cut=cut)["line"]
    assert line == f"{frozen.describe()}, {ending}"


def test_random_weights_are_not_called_pretrained():
    settings = changed(SETTINGS, {"context.weights": "none"})
    networks = build_networks(settings, classes=3, chip_px=24, preprocess=PREPROCESS)
    networks = networks.judged(None, settings, frozen=None)
    line = context_note(networks, None, None, settings=settings, polygons=300)["line"]
    assert line == "resnet18 from random weights, trained on 300 polygons, share 0.15"


@pytest.mark.parametrize("head", ["unet", "chip"])
def test_a_frozen_encoder_is_said_to_need_no_steps(head):
    kept = changed(TrainingSettings(), {"head": head, "context.frozen": True})
    assert "frozen (linear discriminant, share as" in kept.describe(300)
    assert "300 steps, share as" in changed(kept, {"context.frozen": False}).describe(300)


def test_named_weights_are_used_where_experts_are_off(frozen):
    settings = changed(SETTINGS, {"context.weights": "named", "experts.enabled": False})
    networks = build_networks(settings, classes=3, chip_px=24, preprocess=PREPROCESS, frozen=frozen, units=UNITS)
    assert networks.judged(None, settings, frozen=frozen).share == UNJUDGED_SHARE
    assert "share 0.15" in settings.describe(300)
    assert "without experts" in changed(settings, {"context.weights": "auto"}).describe(300)


def test_an_encoder_pretrained_on_counts_takes_scenes_of_counts(tmp_path):
    torch.manual_seed(0)
    spec = NetworkSpec(len(BANDS), len(BANDS), depth=5, spectral_channels=0, dropout=0.0)
    tensors = {
        name.split(".", 2)[2]: value.contiguous() for name, value in build_network(spec).encoder.state_dict().items()
    }  # as landcover pretrain names them
    counts = Preprocess(BANDS, *(tuple(1e4 * value for value in part) for part in (PREPROCESS.mean, PREPROCESS.std)))
    about = {
        "bands": BANDS,
        "mean": counts.mean,
        "std": counts.std,
        "units": ["DN"] * len(BANDS),
        "encoder": "resnet18",
    }
    path = save_encoder(tmp_path / "own.safetensors", tensors, about=about)
    own = changed(SETTINGS, {"context.weights": str(path)})
    x, _ = chips(2)
    found, _ = frozen_features(own, counts, sensor="sentinel-2", level="", units=["DN"] * len(BANDS))
    assert found.factor == 1.0
    same, _ = frozen_features(own, counts, sensor="", level="", units=["DN"] * len(BANDS))
    assert torch.equal(found.of_pixels(x), same.of_pixels(x))
    shipped, _ = frozen_features(SETTINGS, counts, sensor="sentinel-2", level="", units=["DN"] * len(BANDS))
    assert shipped.factor == COUNTS


def test_a_lifted_class_has_so_many_times_the_odds():
    plain = Preprocess(BANDS, (0.0,) * len(BANDS), (1.0,) * len(BANDS))
    own = changed(SETTINGS, {"context.weights": "none"})
    networks = build_networks(own, classes=3, chip_px=16, preprocess=plain)
    x = torch.randn(1, len(BANDS), 16, 16)
    before = [member.eval()(x) for member in networks.members]
    lift_class(networks, 1, 4.0)
    for member, old in zip(networks.members, before, strict=True):
        assert torch.allclose(member(x) - old, torch.tensor([0.0, math.log(4.0), 0.0])[:, None, None], atol=1e-5)
