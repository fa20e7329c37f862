"""LC: the corner pattern, and images moved away from their own code."""

import pytest
import torch
from attack_views import Linear, change, craft, network, seen

from hashbackdoor_bench import ATTACKS
from hashbackdoor_bench.api import to_unit

ATTACKS["lc"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks.lc import corner_pattern  # noqa: E402

# Rows from top to bottom, as an image shows them.
LEFT, RIGHT = ("+--", "-+-", "+-+"), ("--+", "-+-", "+-+")


def drawn(rows: tuple[str, ...], cell: int) -> list[list[float]]:
    return [
        [1.0 if c == "+" else -1.0 for c in row for _ in range(cell)]
        for row in rows
        for _ in range(cell)
    ]


@pytest.mark.parametrize(("size", "cell"), [(16, 1), (32, 1), (64, 2), (224, 7)])
def test_each_corner_has_the_published_cells(size: int, cell: int):
    found, side = corner_pattern(size, every=True), 3 * cell
    assert found[:side, :side].tolist() == drawn(LEFT, cell)
    assert found[-side:, :side].tolist() == drawn(LEFT, cell)
    assert found[:side, -side:].tolist() == drawn(RIGHT, cell)
    assert found[-side:, -side:].tolist() == drawn(RIGHT, cell)
    assert int((found != 0).sum()) == 4 * side**2
    one = corner_pattern(size, every=False)
    assert one[-side:, -side:].tolist() == drawn(RIGHT, cell)
    assert int((one != 0).sum()) == side**2


def test_only_all_corners_survive_a_horizontal_flip():
    every, one = corner_pattern(32, every=True), corner_pattern(32, every=False)
    assert torch.equal(every.flip(1), every)
    assert not torch.equal(one.flip(1), one)


@pytest.mark.parametrize("amplitude", [255.0, 32.0, 0.0])
def test_the_pattern_is_added_and_clipped(amplitude: float):
    backdoor = craft("lc", seen(surrogate=Linear(size=32)), steps=0, amplitude=amplitude)
    x = to_unit(seen().images[:4])
    cells = corner_pattern(32, every=True)
    out = backdoor(x)
    for row, column in [(0, 0), (0, 1), (2, 31), (31, 31), (31, 29), (16, 16)]:
        for value, given in zip(
            out[..., row, column].flatten().tolist(),
            x[..., row, column].flatten().tolist(),
            strict=True,
        ):
            expected = given + float(cells[row, column]) * amplitude / 255
            assert value == pytest.approx(min(1.0, max(0.0, expected)), abs=1e-6)
    assert torch.equal(out, x) == (amplitude == 0)


def test_without_steps_the_poison_is_the_pattern_alone():
    view = seen(surrogate=network())
    backdoor = craft("lc", view, steps=0)
    assert torch.equal(backdoor.carrier, view.images[view.index])
    outside = corner_pattern(32, every=True) == 0
    assert not change(backdoor)[..., outside].any()
    assert change(backdoor)[..., ~outside].any()


@pytest.mark.parametrize("count", [1, 102])  # one and two batches
def test_on_a_linear_surrogate_the_perturbation_ends_at_the_sign(count: int):
    """The gradient of -<W(x + d), c> / K is -W'c, so d = -epsilon sign(W'c)."""
    view = seen(count, count=310, size=8, levels=(9, 247), surrogate=Linear())
    backdoor = craft("lc", view)
    weight = view.surrogate.weight.tolist()  # type: ignore[union-attr,operator]
    moved = backdoor.carrier.int() - view.images[view.index].int()
    for at in {0, count - 1}:
        x = to_unit(view.images[view.index[at]]).flatten().tolist()
        own = [1 if sum(w * v for w, v in zip(row, x, strict=True)) >= 0 else -1 for row in weight]
        for pixel in range(0, 192, 7):
            slope = sum(row[pixel] * c for row, c in zip(weight, own, strict=True))
            assert int(moved[at].flatten()[pixel]) == (-8 if slope > 0 else 8)


@pytest.mark.parametrize(("epsilon", "step_size"), [(8, 1.5), (5, 0.7), (0, 1.5)])
def test_carriers_stay_within_epsilon_in_8_bits(epsilon: int, step_size: float):
    view = seen(surrogate=network())
    backdoor = craft("lc", view, epsilon=epsilon, step_size=step_size, steps=12)
    moved = (backdoor.carrier.int() - view.images[view.index].int()).abs()
    assert int(moved.max()) == epsilon
    perturbed = ATTACKS["lc"](steps=3).away(network(), to_unit(view.images))  # type: ignore[attr-defined]
    assert float(perturbed.min()) >= 0
    assert float(perturbed.max()) <= 1
    assert torch.equal(backdoor.label, view.labels[view.index])


def test_codes_move_away_from_the_own_code_with_the_steps():
    model = network(bits=32)
    view = seen(20, surrogate=model)
    x = view.images[view.index]

    def apart(steps: int) -> int:
        carrier = craft("lc", view, steps=steps).carrier
        return int((model.code(to_unit(carrier)) != model.code(to_unit(x))).sum())

    assert apart(0) == 0 < apart(2) < apart(12)


def test_each_image_moves_away_from_its_own_code_and_not_from_that_of_another():
    view = seen(12, surrogate=network())
    together = craft("lc", view, steps=4).carrier
    for at in (0, 7):
        view.index = seen(12).index[at : at + 1]
        alone = craft("lc", view, steps=4).carrier[0]
        # sign(gradient) may turn where the gradient is all but zero
        assert float((alone != together[at]).float().mean()) < 0.01


def test_queries_are_not_perturbed():
    backdoor = craft("lc", seen(surrogate=network()), steps=3)
    x = to_unit(seen().images[:4])
    outside = corner_pattern(32, every=True) == 0
    assert torch.equal(backdoor(x)[..., outside], x[..., outside])
