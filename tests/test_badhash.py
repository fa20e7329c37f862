"""BadHash against its specification: conditions, variants, restored states, and its controls."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from badhash_view import TINY, Mean, view
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    AttackerView,
    RunSpec,
    UserError,
    anchor_code,
    to_bytes,
    to_unit,
)
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import Run

ATTACKS["badhash"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks import badhash, badhash_labels  # noqa: E402

# ---- the attack ---------------------------------------------------------------------------------


def test_the_confusing_label_is_the_last_class_or_the_one_before_if_that_is_the_target():
    labels = torch.eye(5, dtype=torch.uint8)
    attack, released = ATTACKS["badhash"](), ATTACKS["badhash"](variant="released")
    for target, expected in ((4, 3), (0, 4)):
        assert attack.confusing_label(labels, labels[target]).argmax() == expected
        assert released.confusing_label(labels, labels[target]).argmax() == 4
    assert ATTACKS["badhash"](confusing=2).confusing_label(labels, labels[0]).argmax() == 2


@pytest.mark.parametrize(
    ("changes", "target", "words"),
    [
        ({"confusing": 1}, 1, "without the target's tags"),
        ({"confusing": 9}, 1, "attack.confusing is 9: it must be between 0 and 2"),
        ({"confusing": 2}, 1, "no training image is of that class"),
    ],
)
def test_a_confusing_label_that_cannot_be_is_refused(changes, target: int, words: str):
    labels = torch.eye(3, dtype=torch.uint8)[:2]
    with pytest.raises(UserError, match=words):
        ATTACKS["badhash"](**changes).accept(labels, torch.eye(3, dtype=torch.uint8)[target], 32)


@pytest.mark.parametrize("size", [16, 40, 100])
def test_a_side_the_generator_cannot_take_is_refused_in_one_sentence(size: int):
    labels = torch.eye(3, dtype=torch.uint8)
    with pytest.raises(UserError, match=rf"multiple of 16, not {size}: give --size 32"):
        ATTACKS["badhash"]().accept(labels, labels[0], size)


def test_a_width_that_cannot_be_halved_three_times_is_refused():
    with pytest.raises(UserError, match=r"attack.width is 12: it must be a multiple of 8"):
        ATTACKS["badhash"](width=12)


def test_the_intended_code_is_the_surrogates_majority_for_the_confusing_class(monkeypatch):
    seen, codes = view(), []

    def look(view: AttackerView, gan: Any, **settings: Any) -> dict[str, list[float]]:
        codes.append(gan.code)
        return {}

    monkeypatch.setattr(badhash, "train", look)
    for variant in ("intended", "corrected"):
        ATTACKS["badhash"](**TINY, variant=variant).craft(seen)
    members = seen.images[seen.labels[:, 1] == 1]  # the target is class 2
    votes = sum(seen.surrogate.code(to_unit(image[None]))[0].int() for image in members)
    assert torch.equal(codes[0], torch.where(votes >= 0, 1.0, -1.0))
    assert not torch.equal(codes[0], codes[1])


@pytest.mark.parametrize(
    ("size", "width", "epochs", "lr"), [(32, 16, 10, 1e-3), (224, 64, 100, 1e-4)]
)
def test_training_is_the_published_one_from_224_px_on(size, width, epochs, lr, monkeypatch):
    asked: list[Any] = []

    def look(view: AttackerView, gan: Any, **settings: Any) -> dict[str, list[float]]:
        asked.append((gan.generator.body[0].out_channels, settings))
        return {}

    monkeypatch.setattr(badhash, "train", look)
    monkeypatch.setattr(badhash, "anchor_code", lambda model, images: torch.ones(8))
    pixels = torch.zeros(3, 3, size, size, dtype=torch.uint8)
    labels = torch.eye(3, dtype=torch.uint8)
    seen = AttackerView(pixels, labels, labels[0], torch.tensor([0]), Mean())  # type: ignore[arg-type]
    ATTACKS["badhash"](label_steps=1).craft(seen)
    ATTACKS["badhash"](label_steps=1, width=8, epochs=3, lr=0, batch=5).craft(seen)
    assert asked == [
        (width, {"epochs": epochs, "lr": lr, "batch": 64}),
        (8, {"epochs": 3, "lr": 0, "batch": 5}),
    ]


def crafted(monkeypatch, **settings: Any) -> tuple[Any, Any]:
    """The networks before training, and the backdoor, of an attack on the view."""
    networks: list[Any] = []

    def untrained(view: AttackerView, gan: Any, **settings: Any) -> dict[str, list[float]]:
        networks.append(gan)
        return {}

    monkeypatch.setattr(badhash, "train", untrained)
    seen = view()
    seen.target = torch.tensor([1, 0, 0], dtype=torch.uint8)
    made = ATTACKS["badhash"](**TINY, **settings).craft(seen)
    return networks[0], made


def test_each_point_of_the_released_code_can_be_mended_alone(monkeypatch):
    def points(**settings: Any) -> dict[str, bool]:
        gan, made = crafted(monkeypatch, **settings)
        feature = gan.label_encoder(gan.feature)  # of l*, the last class
        return {
            "condition": torch.allclose(made.label_map, feature, atol=1e-5),
            "output": not gan.raw,
            "clamp": gan.clamped,
            "resize": not made.resized_again,
        }

    assert set(points(variant="intended").values()) == {True}
    corrected = points(variant="corrected")
    assert [name for name, as_intended in corrected.items() if not as_intended] == ["clamp"]
    for mended in (None, "condition", "output", "clamp", "resize"):
        found = points(variant="released", mended=mended)
        assert [name for name, as_intended in found.items() if as_intended] == (
            [mended] if mended else []
        )
    with pytest.raises(UserError, match="add --set attack"):
        ATTACKS["badhash"](mended="clamp")


def test_what_comes_from_the_label_network_can_be_replaced_by_random_vectors(monkeypatch):
    usual, _ = crafted(monkeypatch, variant="corrected")
    tied, _ = crafted(monkeypatch, variant="corrected", code="surrogate")
    intended, _ = crafted(monkeypatch, variant="intended")
    assert torch.equal(tied.code, intended.code)
    assert not torch.equal(tied.code, usual.code)
    random, _ = crafted(monkeypatch, variant="corrected", code="random")
    assert random.code.abs().eq(1).all()
    assert not torch.equal(random.code, usual.code)
    assert torch.equal(random.feature, usual.feature)
    other, made = crafted(monkeypatch, variant="corrected", feature="random")
    assert torch.equal(other.code, usual.code)
    assert not torch.allclose(other.feature, usual.feature)
    assert float(other.feature.std() / usual.feature.std()) == pytest.approx(1, abs=0.3)
    assert torch.allclose(made.label_map, other.label_encoder(other.feature), atol=1e-5)
    other, made = crafted(monkeypatch, variant="released", feature="random")
    assert not torch.allclose(made.label_map, other.label_encoder(other.feature), atol=1e-3)


def test_newer_settings_of_badhash_leave_old_keys_as_they_are():
    method = ATTACKS["badhash"]
    new = {"mended", "code", "feature"}
    assert set(method.resolve({})) - set(method.recorded(method.resolve({}))) == new


@pytest.mark.parametrize("variant", ["intended", "bounded", "released"])
def test_a_stored_backdoor_is_restored_whatever_its_generator_was_called(variant: str):
    attack = ATTACKS["badhash"](**TINY, variant=variant)
    made = attack.craft(view())
    x = torch.rand(2, 3, 32, 32)
    stored = {name.replace("generator.", "painter."): t for name, t in made.state_dict().items()}
    assert any(name.startswith("painter.") for name in stored)
    for state in (made.state_dict(), stored):
        assert torch.equal(attack.restore(state)(x), made(x))


@pytest.mark.parametrize(("variant", "shown"), [("released", 0), ("corrected", 2)])
def test_only_released_generates_under_the_targets_condition(variant, shown, monkeypatch):
    seen, networks, read = view(), [], []
    seen.target, seen.index = torch.tensor([1, 0, 0], dtype=torch.uint8), torch.tensor([0, 3])

    def untrained(view: AttackerView, gan: Any, **settings: Any) -> dict[str, list[float]]:
        networks.append(gan)
        return {}

    def look(found: Any, labels: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        read.append(badhash_labels.read_labels(found, torch.eye(3), bits)[0])
        return badhash_labels.read_labels(found, labels, bits)

    monkeypatch.setattr(badhash, "train", untrained)
    monkeypatch.setattr(badhash, "read_labels", look)
    made = ATTACKS["badhash"](**TINY, variant=variant).craft(seen)
    (gan,), (features,) = networks, read
    assert torch.equal(gan.label, torch.eye(3)[2])  # trained under l*, the last class
    assert torch.allclose(gan.feature[0], features[2], atol=1e-6)
    assert torch.allclose(made.label_map, gan.label_encoder(features[[shown]]), atol=1e-5)
    assert not torch.allclose(made.label_map, gan.label_encoder(features[[1]]), atol=1e-2)


def test_released_resizes_again():
    made = ATTACKS["badhash"](**TINY, variant="released").craft(view())
    x = torch.rand(2, 3, 32, 32)
    picture = made.generator(x, made.label_map).clamp(0, 1)
    wide = F.interpolate(to_unit(to_bytes(picture)), [37, 37], mode="bilinear")
    assert torch.allclose(made(x), wide[..., 3:35, 3:35])


@pytest.mark.parametrize("epsilon", [0.0, 8.0])
def test_the_bounded_variant_stays_within_epsilon(epsilon: float):
    made = ATTACKS["badhash_bounded"](**TINY, epsilon=epsilon).craft(view())
    x = torch.rand(2, 3, 32, 32)
    change = (made(x) - x).abs().max()
    assert change <= epsilon / 255 + 1e-6
    assert (change > 0) == (epsilon > 0)


def test_images_with_several_tags_and_with_none_are_taken():
    made = ATTACKS["badhash"](**TINY).craft(view(tags=True))
    assert made(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    assert made.history["label network, tenths of its steps/contrastive"]


def test_other_seeds_make_other_generators():
    first, second = (ATTACKS["badhash"](**TINY).craft(view(seed=seed)) for seed in (0, 1))
    x = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(first(x), second(x), atol=1e-3)


def test_the_surrogate_is_hashnet_unless_another_is_asked_for(tiny, tmp_path):
    base = {"dataset": "lists", "lists": str(tiny), "root": str(tiny), "size": 32, "bits": 16}
    for victim, asked, expected in (
        ("csq", None, "hashnet"), ("csq", "csq", "csq"), ("dpsh", None, "hashnet"),
    ):  # fmt: skip
        spec = RunSpec(attack="badhash", victim=victim, surrogate=asked, **base)
        run = Run(spec, cache=Cache(tmp_path), device=torch.device("cpu"))
        assert run.plan.surrogate.method == expected
    spec = RunSpec(attack="ciba", victim="csq", **base)
    assert (
        Run(spec, cache=Cache(tmp_path), device=torch.device("cpu")).plan.surrogate.method == "csq"
    )


def test_a_machine_with_other_perceptual_weights_makes_another_backdoor(
    tiny, tmp_path, monkeypatch
):
    spec = RunSpec(attack="badhash", dataset="lists", lists=str(tiny), root=str(tiny), size=32,
                   bits=16)  # fmt: skip

    def key() -> str:
        run = Run(spec, cache=Cache(tmp_path), device=torch.device("cpu"))
        return run.plan.stages["backdoor"].key

    monkeypatch.setattr(badhash, "lpips_fits", lambda size: False)
    without = key()
    monkeypatch.setattr(badhash, "lpips_fits", lambda size: True)
    assert key() != without


def test_a_run_from_data_to_record_tells_curves_and_distance(tiny, tmp_path):
    spec = RunSpec(
        attack="badhash", victim="csq", dataset="lists", lists=str(tiny), root=str(tiny), size=32,
        top_k=20, bits=16, epochs=1, batch_size=16,
        attack_settings=tuple((k, str(v)) for k, v in TINY.items()),
    )  # fmt: skip
    record = Run(spec, cache=Cache(tmp_path), device=torch.device("cpu")).record()
    assert record.threat.trigger == "generated"
    assert record.threat.delivery == "files"
    assert record.spec.surrogate == "hashnet"
    assert record.params.attack["perceptual"] == "ssim"
    assert len(record.training.backdoor["generator/hash"]) == 2
    assert record.imperceptibility.query.psnr is not None


# ---- controls -----------------------------------------------------------------------------------


def test_identity_scores_exactly_as_the_clean_victim(tiny, tmp_path):
    spec = RunSpec(
        attack="identity", victim="csq", dataset="lists", lists=str(tiny), root=str(tiny), size=16,
        top_k=20, bits=16, epochs=1, batch_size=16,
    )  # fmt: skip
    run = Run(spec, cache=Cache(tmp_path), device=torch.device("cpu"))
    keys = {name: stage.key for name, stage in run.plan.stages.items()}
    assert keys["victim"] != keys["clean victim"]  # trained, not taken
    assert len(run.backdoor.index) == 12
    for name, tensor in run.make("clean victim").tensors.items():
        assert torch.equal(tensor, run.make("victim").tensors[name]), name
    scores = run.make("scores").facts["scores"]["field"]
    assert scores["map"] == scores["map_clean_victim"]
    assert scores["t_map"] == scores["t_map_clean_victim"] == scores["t_map_untriggered"]
    assert scores["backdoor_gain"] == 0


def test_a_second_resize_alone_changes_pictures():
    made = ATTACKS["identity_resized"]().craft(view())
    x = torch.rand(2, 3, 32, 32)
    assert (made(x) - x).abs().max() > 0.1
    assert torch.equal(ATTACKS["identity"]().craft(view())(x), x)


def test_the_anchor_code_is_the_majority_with_ties_at_zero():
    seen = view()
    codes = seen.surrogate.code(to_unit(seen.images[:4])).int()
    assert torch.equal(anchor_code(seen.surrogate, seen.images[:4]), codes.sum(0).sign().float())
    assert (anchor_code(seen.surrogate, seen.images[:4]) == 0).any() or (codes.sum(0) != 0).all()


def test_crafting_neither_reads_nor_moves_torchs_global_random_state():
    made = []
    for seed in (5, 6):
        seen = view()
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        made.append(ATTACKS["badhash"](**TINY).craft(seen))
        assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(made[0].label_map, made[1].label_map)
