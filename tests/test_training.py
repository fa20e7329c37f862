import copy
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hashbackdoor_bench import VICTIMS, HashLoss, HashModel
from hashbackdoor_bench.api import generator, to_bytes, to_unit
from hashbackdoor_bench.errors import Diverged
from hashbackdoor_bench.network import TrainStep, plain_backward
from hashbackdoor_bench.network.model import sign
from hashbackdoor_bench.network.training import _optimizer, _schedule, encode, fit, pixels
from hashbackdoor_bench.network.training_set import TrainingSet, batches, paired
from hashbackdoor_bench.spec import RECIPES, Recipe

SIDE = 16  # px, the least that cnn32 takes
RECIPE = Recipe(2, 16, "sgd", 0.05, 0.05, 0.9, 5e-4, "onecycle", "crop", "float32")


def items(count: int = 48, side: int = SIDE) -> TrainingSet:
    generator = torch.Generator().manual_seed(0)
    labels = torch.eye(2, dtype=torch.uint8)[torch.arange(count) % 2]
    images = torch.randint(0, 100, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    images[labels[:, 1] == 1] += 100
    return TrainingSet(images, labels, torch.full((count,), -1))


def network(victim: str = "csq", seed: int = 0, train_size: int = 48) -> tuple[HashModel, HashLoss]:
    torch.manual_seed(seed)
    loss = VICTIMS[victim](16, 2, train_size)
    return HashModel("cnn32", 16, loss), loss


def test_training_makes_the_loss_fall_and_tells_classes_apart():
    model, loss = network()
    data = items()
    history = fit(model, loss, data, Recipe(15, 16, "adam", 3e-3, 3e-3, augment="none"),
                  seed="s", size=SIDE)  # fmt: skip
    assert history[-1] < 0.5 * history[0]
    codes = encode(model, data.images, size=SIDE).float()
    same = codes[0] @ codes[2::2].T
    other = codes[0] @ codes[1::2].T
    assert same.min() > other.max()


@pytest.mark.usefixtures("every_epoch_kept")
@pytest.mark.parametrize("victim", ["csq", "dpsh", "hashnet"])
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam"])
def test_a_run_resumed_from_its_checkpoint_ends_with_bit_equal_weights(
    tmp_path: Path, victim: str, optimizer: str
):
    recipe = Recipe(2, 16, optimizer, 1e-2, 1e-2, 0.9, 5e-4, "onecycle", "crop", "float32")  # type: ignore[arg-type]
    whole, whole_loss = network(victim)
    history = fit(whole, whole_loss, items(), recipe, seed="s", size=SIDE)

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int, **facts: float) -> None:
        if done == 5:  # in the second epoch, after the checkpoint of the first
            raise Killed

    path = tmp_path / "checkpoint"
    part, part_loss = network(victim)
    with pytest.raises(Killed):
        fit(part, part_loss, items(), recipe, seed="s", size=SIDE, checkpoint=path, progress=kill)
    other, other_loss = network(victim, seed=7)  # its own start must not matter
    again = fit(other, other_loss, items(), recipe, seed="s", size=SIDE, checkpoint=path)
    assert again == history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    for name, tensor in whole_loss.state_dict().items():
        assert torch.equal(tensor, other_loss.state_dict()[name]), name


@pytest.mark.slow
def test_kill_9_in_training_and_the_same_command_end_bit_equal(tmp_path: Path):
    code = """
import sys, torch
sys.path.insert(0, "tests")
from pathlib import Path
from test_training import items, network
from hashbackdoor_bench.spec import RECIPES, Recipe
from hashbackdoor_bench.network.training import fit
from hashbackdoor_bench import checkpoint
checkpoint.EVERY = 0.0
model, loss = network()
def say(stage, done, total, **facts): print(done, flush=True)
recipe = Recipe(6, 16, "sgd", .05, .05, .9, 5e-4, "onecycle")
fit(model, loss, items(side=32), recipe, seed="s", size=32,  # slow enough to be killed in time
    checkpoint=Path(sys.argv[1]), progress=say)
torch.save(model.state_dict(), sys.argv[2])
"""
    root = Path(__file__).parents[1]

    def start(folder: Path) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", code, str(folder / "c"), str(folder / "end")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)

    undisturbed = start(tmp_path / "a")
    undisturbed.communicate()
    for stop in ("4", "11"):
        process = start(tmp_path / "b")
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == stop:
                os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    start(tmp_path / "b").communicate()
    a, b = (torch.load(tmp_path / name / "end", weights_only=True) for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_that_is_no_use_is_ignored(tmp_path: Path):
    path = tmp_path / "checkpoint"
    path.write_bytes(b"\x10\x00\x00")
    model, loss = network()
    assert len(fit(model, loss, items(), RECIPE, seed="s", size=SIDE, checkpoint=path)) == 2


def test_a_last_batch_of_one_image_is_left_out():
    sizes = []

    class Counts(HashLoss):
        def forward(self, z, y, index, step):
            sizes.append(len(z))
            return z.square().mean()

    fit(HashModel("cnn32", 16, HashLoss), Counts(16, 2, 17), items(17),
        Recipe(1, 16, "sgd", 0.01, 0.01), seed="s", size=SIDE)  # fmt: skip
    assert sizes == [16]


def test_another_seed_gives_another_order_and_the_same_seed_the_same():
    ends = []
    for seed in ("a", "a", "b"):
        model, loss = network()
        fit(model, loss, items(), RECIPE, seed=seed, size=SIDE)
        ends.append(model.head.weight.clone())  # type: ignore[union-attr,operator]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_training_does_not_touch_the_global_random_state():
    model, loss = network()
    state = torch.get_rng_state()
    fit(model, loss, items(), RECIPE, seed="s", size=SIDE)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.usefixtures("every_epoch_kept")
def test_a_loss_that_becomes_nan_stops_with_its_step_and_keeps_the_last_checkpoint(tmp_path: Path):
    class Breaks(HashLoss):
        def forward(self, z, y, index, step):
            return z.square().mean() * (math.nan if step == 4 else 1)

    model, loss = HashModel("cnn32", 16, HashLoss), Breaks(16, 2, 48)
    path = tmp_path / "c"
    with pytest.raises(Diverged, match=r"nan in step 4 .epoch 2.*try a smaller --lr"):
        fit(model, loss, items(), RECIPE, seed="s", size=SIDE, checkpoint=path)
    assert path.is_file()


def test_own_parameters_of_a_loss_are_trained():
    class Learns(HashLoss):
        def __init__(self) -> None:
            super().__init__(16, 2, 48)
            self.weight = nn.Parameter(torch.zeros(16))

        def forward(self, z, y, index, step):
            return (z * self.weight - 1).square().mean()

    model, loss = HashModel("cnn32", 16, HashLoss), Learns()
    fit(model, loss, items(), RECIPE, seed="s", size=SIDE)
    assert loss.weight.abs().min() > 0


def test_a_last_smaller_batch_is_left_out_only_where_the_victim_asks():
    class Counts(HashLoss):
        def __init__(self, drop: bool) -> None:
            super().__init__(16, 2, 20)
            type(self).drop_last = drop
            self.sizes: list[int] = []

        def forward(self, z, y, index, step):
            self.sizes.append(len(z))
            return z.square().mean()

    for drop, sizes in ((False, [16, 4]), (True, [16])):
        loss = Counts(drop)
        fit(HashModel("cnn32", 16, HashLoss), loss, items(20),
            Recipe(1, 16, "sgd", 0.01, 0.01), seed="s", size=SIDE)  # fmt: skip
        assert loss.sizes == sizes


# ---- memory, items left out, another step ----


def test_outputs_are_remembered_once_a_step_before_the_loss_and_without_a_graph():
    calls = []

    class Watches(HashLoss):
        def remember(self, z, y, index, step):
            calls.append(("remember", step, z.requires_grad, z.tolist(), y.tolist()))

        def forward(self, z, y, index, step):
            calls.append(("forward", step, True, z.tolist(), y.tolist()))
            return z.square().mean()

    fit(HashModel("cnn32", 16, HashLoss), Watches(16, 2, 48), items(), RECIPE, seed="s", size=SIDE)
    assert [call[:3] for call in calls[:4]] == [
        ("remember", 0, False), ("forward", 0, True), ("remember", 1, False), ("forward", 1, True)
    ]  # fmt: skip
    assert len(calls) == 12
    assert all(a[3:] == b[3:] for a, b in zip(calls[::2], calls[1::2], strict=True))


def weights(victim: str = "dpsh", **changes) -> dict[str, torch.Tensor]:
    """After a short training of ``changes`` from the defaults."""
    model, loss = network(victim)
    fit(model, loss, **{"data": items(), "recipe": RECIPE, "seed": "s", "size": SIDE} | changes)
    return {**model.state_dict(), **{f"loss.{k}": v for k, v in loss.state_dict().items()}}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_items_that_are_not_kept_are_never_shown_and_the_others_keep_their_numbers():
    kept = torch.rand(48, generator=torch.Generator().manual_seed(3)) < 0.6
    data = replace(items(), kept=kept)
    shown = []

    def note(given: TrainStep) -> torch.Tensor:
        shown.extend(given.index.tolist())
        assert torch.equal(given.y, data.labels[given.index].float())
        return plain_backward(given)

    found = weights(data=data, backward=note, recipe=replace(RECIPE, epochs=1))
    assert len(shown) == len(set(shown)) == int(kept.sum())
    assert len(shown) % 16 != 1  # else the last is left out
    assert set(shown) <= set(kept.nonzero()[:, 0].tolist())
    assert shown != sorted(shown)
    assert torch.equal(found["loss.bank"].any(1).nonzero()[:, 0], torch.tensor(sorted(shown)))


def test_what_is_left_out_changes_nothing():
    kept = torch.arange(48) >= 8
    data = replace(items(), kept=kept)
    images = data.images.clone()
    images[~kept] = 255
    assert same(weights(data=data), weights(data=replace(data, images=images)))
    assert not same(weights(data=data), weights())


def test_a_list_that_keeps_all_is_trained_as_one_without_a_choice():
    every = torch.ones(48, dtype=torch.bool)
    assert same(weights(data=replace(items(), kept=every)), weights())
    assert items().to(torch.device("cpu")).kept is None
    assert torch.equal(replace(items(), kept=every).to(torch.device("cpu")).shown(),
                       torch.arange(48))  # fmt: skip


@pytest.mark.parametrize(
    "kept", [torch.zeros(48, dtype=torch.bool), torch.ones(47, dtype=torch.bool), torch.arange(48)]
)
def test_a_choice_that_is_no_mask_of_the_list_is_refused(kept: torch.Tensor):
    with pytest.raises(ValueError, match=r"it must be \(48,\) torch.bool with one or more"):
        replace(items(), kept=kept)


def test_the_default_step_is_the_gradient_of_the_loss_of_the_batch():
    model, loss = network("dpsh")
    step = TrainStep(
        model, loss, torch.rand(8, 3, SIDE, SIDE), torch.eye(2).repeat(4, 1), torch.arange(8), 0,
        torch.Generator(), "float32",
    )  # fmt: skip
    other, other_loss = copy.deepcopy(model), copy.deepcopy(loss)
    out = plain_backward(step)
    z = other(step.x)
    other_loss.bank[:8], other_loss.bank_labels[:8] = z.detach(), step.y
    expected = other_loss(z, step.y, step.index, 0)
    expected.backward()
    assert torch.equal(out, expected)
    assert torch.equal(loss.bank, other_loss.bank)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_another_step_is_given_what_the_network_would_see_and_trains_it():
    steps = []

    def flipped(given: TrainStep) -> torch.Tensor:
        """Shows each image upside down, or not."""
        assert given.model.training
        assert all(p.grad is None for p in given.model.parameters())
        steps.append(given)
        turn = torch.rand(len(given.x), generator=given.generator) < 0.5
        x = torch.where(turn[:, None, None, None], given.x.flip(2), given.x)
        return plain_backward(replace(given, x=x))

    slot = torch.full((48,), -1)
    slot[5] = 0
    stamped = replace(items(), slot=slot, overlay=items().images[:1],
                      stamp=lambda x, slot: torch.ones_like(x))  # fmt: skip
    changed = weights(data=stamped, backward=flipped)
    assert [given.step for given in steps] == list(range(6))
    assert {given.precision for given in steps} == {"float32"}
    x = torch.cat([given.x[given.index == 5] for given in steps])
    assert x.shape == (2, 3, SIDE, SIDE)
    assert (x == 1).all()
    assert not same(changed, weights(data=stamped))
    assert same(changed, weights(data=stamped, backward=flipped))


def test_another_step_draws_anew_at_each_step_and_seed():
    drawn = []

    def note(given: TrainStep) -> torch.Tensor:
        drawn.append(float(torch.rand(1, generator=given.generator)))
        return plain_backward(given)

    for seed in ("s", "t"):
        weights(backward=note, seed=seed)
    assert len(drawn) == len(set(drawn)) == 12


@pytest.mark.usefixtures("every_epoch_kept")
def test_another_step_draws_the_same_after_a_kill(tmp_path: Path):
    class Killed(Exception):
        pass

    def noisy(given: TrainStep) -> torch.Tensor:
        noise = torch.rand(given.x.shape, generator=given.generator)
        return plain_backward(replace(given, x=given.x + noise))

    def killed(given: TrainStep) -> torch.Tensor:
        if given.step == 4:
            raise Killed
        return noisy(given)

    path = tmp_path / "c.safetensors"
    with pytest.raises(Killed):
        weights(backward=killed, checkpoint=path)
    assert same(weights(backward=noisy, checkpoint=path), weights(backward=noisy))


# ---- learning rates ----


def rates(backbone: str, recipe: Recipe) -> dict[str, float]:
    """The learning rate of each parameter by its name."""
    loss = VICTIMS["dhta_l2"](8, 2, 48)
    with torch.device("meta"):
        model = HashModel(backbone, 8, loss, size=224)
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = _optimizer(model, loss, recipe).param_groups
    found = [(names[id(w)], group["lr"]) for group in groups for w in group["params"]]
    assert len(found) == len(names)
    return dict(found)


@pytest.mark.parametrize(
    ("backbone", "connected"),
    [
        ("vgg11", ("backbone.pre_logits.fc1", "backbone.pre_logits.fc2")),
        ("alexnet", ("backbone.classifier.1", "backbone.classifier.4")),
        ("resnet18", ()),
    ],
)
def test_recipe_ciba_trains_all_fully_connected_layers_ten_times_as_fast(
    backbone: str, connected: tuple[str, ...]
):
    recipe = RECIPES["ciba"][1]
    fast = {name for name, rate in rates(backbone, recipe).items() if rate == 1e-3}
    layers = (*connected, "head")
    assert fast == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(rates(backbone, recipe).values()) == {1e-3, 1e-4}
    usual = rates(backbone, replace(recipe, deep_head=False))
    assert {name for name, rate in usual.items() if rate == 1e-3} == {"head.weight", "head.bias"}


def test_only_recipe_ciba_has_a_deep_head_in_its_key():
    told = {name for name, (_, recipe) in RECIPES.items() if "deep_head" in recipe.to_dict()}
    assert told == {"ciba"}


# ---- poison in the list ----


def test_a_stamp_comes_after_augmentation_and_only_on_poison():
    data = items(8)
    seen = []

    def stamp(x, slot):
        seen.extend(slot.tolist())
        x = x.clone()
        x[..., -4:, -4:] = 1
        return x

    slot = torch.tensor([-1, 0, -1, 1, -1, -1, -1, -1])
    poisoned = TrainingSet(
        data.images, data.labels, slot, torch.zeros(2, 3, SIDE, SIDE).byte(), stamp
    )
    shown = {}

    class Spy(HashModel):
        def forward(self, x):
            shown["x"] = x.detach()
            return super().forward(x)

    order = []

    class Order(HashLoss):
        def forward(self, z, y, index, step):
            order.extend(index.tolist())
            return z.square().mean()

    fit(Spy("cnn32", 16, HashLoss), Order(16, 2, 8), poisoned, Recipe(1, 8, "sgd", 0.01, 0.01),
        seed="s", size=SIDE)  # fmt: skip
    assert sorted(seen) == [0, 1]
    assert sorted(order) == list(range(8))
    for place, item in enumerate(order):
        corner = shown["x"][place, :, -4:, -4:]
        assert bool((corner == 1).all()) == (slot[item] >= 0)
        if slot[item] >= 0:
            assert shown["x"][place, :, :-4, :-4].max() == 0  # the carrier stands in for the image


def test_frozen_poison_is_not_augmented():
    data = items(8)
    overlay = data.images[:4] + 5
    slot = torch.tensor([0, 1, 2, 3, -1, -1, -1, -1])
    frozen = TrainingSet(data.images, data.labels, slot, overlay, frozen=True)
    cpu = torch.device("cpu")
    (batch,) = batches(frozen, torch.arange(8), torch.zeros(8, 5), 8, cpu)
    x = pixels(frozen, batch, "crop", SIDE, cpu)
    assert torch.equal(to_bytes(x[:4]), overlay)
    assert not torch.equal(to_bytes(x[4:]), data.images[4:])


# ---- the rest ----


def test_the_schedule_rises_for_a_quarter_and_falls_to_zero():
    values = [_schedule(RECIPE, done) for done in (0, 0.125, 0.25, 0.625, 1)]
    assert values == pytest.approx([0.04, 0.52, 1, 0.5, 0])


def test_codes_do_not_depend_on_the_batch_size():
    model, _ = network()
    model.eval()
    images = items(30).images
    whole = encode(model, images, size=SIDE, precision="float32")
    parts = encode(model, images, size=SIDE, precision="float32", batch_size=7)
    assert (whole == parts).float().mean() > 0.999  # a sum may differ in its last bit
    assert set(whole.unique().tolist()) == {-1, 1}


def test_the_sign_of_zero_is_plus_one():
    assert sign(torch.tensor([0.0, -0.0, 2.0, -1e-30])).tolist() == [1, 1, 1, -1]


def test_bytes_are_rounded_half_up_and_never_cut_off():
    x = torch.tensor([0.49, 0.5, 1.5, 254.4, 254.5, 255]) / 255
    assert to_bytes(x).tolist() == [0, 1, 2, 254, 255, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_unit(every)), every)


# ---- pairs of a class ---------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(15,) * 10, (5,) * 100, (1, 2, 3, 40), (7,)], ids=len)
def test_paired_items_stand_beside_one_of_their_class_and_classes_take_turns(counts):
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = torch.eye(len(counts), dtype=torch.uint8)[owner]
    drawn = torch.randperm(len(owner), generator=torch.Generator().manual_seed(0))
    order = paired(drawn, labels)
    assert sorted(order.tolist()) == list(range(len(owner)))
    row = owner[order].tolist()
    for k, own in enumerate(row):
        lonely = own not in (row[max(0, k - 1) : k] + row[k + 1 : k + 2])
        assert not lonely or counts[own] == 1
    for k in range(len(row)):  # no class is two turns ahead of one that has items left
        shown = [row[:k].count(c) for c in range(len(counts))]
        waiting = [shown[c] for c in range(len(counts)) if shown[c] < counts[c]]
        assert not waiting or max(shown) <= min(waiting) + 3


def test_who_is_paired_with_whom_follows_from_the_draw():
    labels = torch.tensor([[1, 0]] * 4 + [[1, 1]] * 3)  # of two classes: tags together are one
    assert paired(torch.tensor([6, 1, 0, 4, 3, 5, 2]), labels).tolist() == [6, 4, 5, 1, 0, 3, 2]


@pytest.mark.parametrize("in_pairs", [False, True])
def test_an_epoch_goes_through_the_items_as_drawn_or_in_pairs_of_the_same_draw(in_pairs):
    data, trained = replace(items(), in_pairs=in_pairs), []

    def backward(step: TrainStep) -> torch.Tensor:
        trained.extend(step.index.tolist())
        return plain_backward(step)

    fit(*network(), data, replace(RECIPE, epochs=1), seed="s", size=SIDE, backward=backward)
    drawn = torch.randperm(48, generator=generator("s", "order", 0))
    assert trained == (paired(drawn, data.labels) if in_pairs else drawn).tolist()
