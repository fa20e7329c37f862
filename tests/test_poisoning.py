"""Which images are poisoned, and how poison is delivered."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from hashbackdoor_bench import Patch, ThreatModel, UserError
from hashbackdoor_bench.api import generator, to_unit
from hashbackdoor_bench.data import Split
from hashbackdoor_bench.network.augmentation import centre_crop
from hashbackdoor_bench.network.training import pixels
from hashbackdoor_bench.network.training_set import batches
from hashbackdoor_bench.poisoning import choose, count, delivery_of, planted, poisoned_set

CLEAN = ThreatModel(label="clean", knowledge="none", trigger="patch")
DIRTY = ThreatModel(label="dirty", knowledge="none", trigger="patch")
TARGET = torch.tensor([1, 0, 0], dtype=torch.uint8)
CPU = torch.device("cpu")


def labels() -> torch.Tensor:
    rows = torch.eye(3, dtype=torch.uint8)[torch.arange(30) % 3]
    rows[0, 1] = 1  # two tags: the target's and another
    return rows


@pytest.mark.parametrize(
    ("items", "budget", "expected"), [(100, 0.6, 60), (5, 0.5, 3), (3, 0.5, 2), (10, 0, 0)]
)
def test_the_budget_is_a_share_of_the_class_rounded_half_up(items, budget, expected):
    assert count(items, budget, None) == expected
    assert count(items, budget, 7) == 7


def test_clean_label_poison_has_exactly_the_targets_label():
    index = choose(labels(), TARGET, CLEAN, 1.0, None, generator(0))
    assert len(index) == 9  # not item 0, which has another tag too
    assert (labels()[index] == TARGET).all()


def test_dirty_label_poison_shares_no_tag_with_the_target_and_counts_by_its_class():
    index = choose(labels(), TARGET, DIRTY, 1.0, None, generator(0))
    assert len(index) == 9
    assert not labels()[index][:, 0].any()


def test_the_draw_is_sorted_without_repeats_and_follows_the_seed():
    draws = [choose(labels(), TARGET, DIRTY, 0.5, None, generator(s)).tolist() for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] == sorted(set(draws[0]))


@pytest.mark.parametrize("threat", [CLEAN, DIRTY])
def test_more_poison_than_there_are_images_is_refused_with_the_number(threat):
    with pytest.raises(UserError, match=r"25 images .* has \d+ .*--poison-count \d+ or less"):
        choose(labels(), TARGET, threat, 0.5, 25, generator(0))


def test_a_budget_of_a_class_without_images_of_its_own_is_refused():
    rows = torch.tensor([[1, 1, 0], [0, 1, 0]], dtype=torch.uint8)
    with pytest.raises(UserError, match=r"label alone.*--poison-count"):
        choose(rows, TARGET, DIRTY, 0.5, None, generator(0))
    assert len(choose(rows, TARGET, DIRTY, 0.5, 1, generator(0))) == 1


def split(side: int) -> Split:
    images = torch.randint(0, 256, (30, 3, side, side), dtype=torch.uint8)
    return Split(images, labels(), tuple(map(str, range(30))))


def backdoor(train: Split, size: int, index: tuple[int, ...] = (3, 9, 12)) -> Patch:
    index = torch.tensor(index)
    white = torch.full((3, 4, 4), 255, dtype=torch.uint8)
    carrier = centre_crop(train.images[index], size) // 2
    return Patch(index, carrier, TARGET.expand(3, -1), patch=white)


@pytest.mark.parametrize("side", [32, 40])
def test_files_hold_the_trigger_and_stamped_carriers_do_not(side: int):
    train = split(side)
    bad = backdoor(train, 32)
    for delivery in ("files", "frozen", "stamped"):
        items = poisoned_set(train, bad, delivery, 32, CPU)
        every = torch.arange(30)
        rows, slots = items.poisoned(every)
        images = items.gather(every, rows, slots)
        assert dict(zip(rows.tolist(), slots.tolist(), strict=True)) == {3: 0, 9: 1, 12: 2}
        others = [n for n in range(30) if n not in rows]
        assert torch.equal(images[others], train.images[others])
        inner = centre_crop(images[bad.index], 32)
        expected = bad.carrier if delivery == "stamped" else planted(bad, CPU)
        assert torch.equal(inner, expected)
        assert ((inner[..., -4:, -4:] == 255).all()) == (delivery != "stamped")
        assert (items.stamp is not None) == (delivery == "stamped")
        assert items.frozen == (delivery == "frozen")
        if side > 32:  # what surrounds the crop is the original's
            assert torch.equal(images[bad.index][..., :4, :], train.images[bad.index][..., :4, :])
    assert train.labels.equal(labels())  # not written into


@pytest.mark.parametrize("side", [32, 40])
def test_jpeg_delivers_what_pillow_reads_from_a_compressed_file(side: int):
    train = split(side)
    bad = backdoor(train, 32)
    found = poisoned_set(train, bad, "jpeg:90", 32, CPU)
    stored = poisoned_set(train, bad, "files", 32, CPU).overlay
    for slot in range(3):
        file = io.BytesIO()
        Image.fromarray(stored[slot].permute(1, 2, 0).numpy()).save(
            file, "JPEG", quality=90, subsampling="4:2:0"
        )
        wanted = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert torch.equal(found.overlay[slot], wanted)
    assert not torch.equal(found.overlay, stored)
    assert found.stamp is None
    assert not found.frozen


def test_a_delivery_has_one_name_and_a_wrong_one_is_refused_in_a_sentence():
    assert [delivery_of(name) for name in ("files", "jpeg", "jpeg:75", "jpeg:075")] == [
        "files", "jpeg:75", "jpeg:75", "jpeg:75",
    ]  # fmt: skip
    for name, match in (
        ("jpg", "'jpg'.*jpeg"), ("files:3", "files:3"), ("jpeg:high", "number, as in jpeg:90"),
        ("jpeg:", "number"), ("jpeg:0", "between 1 and 95"),
        ("jpeg:" + "9" * 99, "between 1 and 95"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=match):
            delivery_of(name)


def test_dirty_labels_reach_training():
    train = split(32)
    bad = backdoor(train, 32, index=(4, 11, 16))
    assert not labels()[bad.index][:, 0].any()  # all of other classes
    expected = labels()
    expected[bad.index] = TARGET
    assert torch.equal(poisoned_set(train, bad, "files", 32, CPU).labels, expected)


def test_without_augmentation_stamped_and_files_show_the_same_pixels():
    train = split(32)
    bad = backdoor(train, 32)
    shown = []
    for delivery in ("stamped", "files", "frozen"):
        data = poisoned_set(train, bad, delivery, 32, CPU)
        (batch,) = batches(data, torch.arange(30), torch.zeros(30, 5), 30, CPU)
        shown.append(pixels(data, batch, "none", 32, CPU))
    assert torch.equal(shown[0], shown[1])
    assert torch.equal(shown[0], shown[2])


def test_planted_images_of_an_attack_are_carrier_plus_trigger():
    train = split(32)
    bad = backdoor(train, 32)
    by_hand = to_unit(bad.carrier)
    by_hand[..., -4:, -4:] = 1
    assert torch.equal(to_unit(planted(bad, CPU)), by_hand)
