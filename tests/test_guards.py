"""Defenses that change a training step, against plain loops and autograd."""

import copy

import numpy as np
import torch
from planted import BITS, CLASSES, Planted, pictures
from scipy import stats
from torch import Tensor, nn

from hashbackdoor_bench import (
    DEFENSES,
    VICTIMS,
    HashLoss,
    TrainStep,
    plain_backward,
    to_unit,
)


def step_of(loss: HashLoss, count: int = 12, *, seed: int = 0, model: nn.Module | None = None):
    """A step of the planted network, whose parameters are trained."""
    held = pictures(count, seed=seed)
    model = (model or Planted()).train().requires_grad_(True)
    return TrainStep(
        model=model,
        loss=loss,
        x=to_unit(held.images),
        y=held.labels.float(),
        index=torch.arange(count) + 5,
        step=3,
        generator=torch.Generator().manual_seed(seed),
        precision="float32",
    )


def victim(name: str, count: int = 40, **settings) -> HashLoss:
    return VICTIMS[name].cls(BITS, CLASSES, count, **settings)


def gradients(step: TrainStep) -> dict[str, Tensor]:
    named = [*step.model.named_parameters(), *step.loss.named_parameters()]
    return {name: value.grad.clone() for name, value in named if value.grad is not None}


# ---- cutmix -------------------------------------------------------------------------------------


def test_the_mixed_pixels_are_a_box_whose_share_is_exactly_one_minus_l():
    x = torch.arange(4.0)[:, None, None, None].expand(4, 3, 32, 32)
    partner, random = torch.tensor([1, 2, 3, 0]), torch.Generator().manual_seed(0)
    shares = []
    for _ in range(300):
        out, share = DEFENSES["cutmix"]().mixed(x, partner, random)
        changed = (out != x)[:, 0]
        assert (changed == changed[0]).all()
        assert share == 1 - float(changed[0].double().mean())
        assert torch.equal(out[:, 0][changed], x[partner][:, 0][changed])
        rows, columns = changed[0].any(1), changed[0].any(0)
        assert int(changed[0].sum()) == int(rows.sum()) * int(columns.sum())
        for side in (rows, columns):
            on = side.nonzero().flatten()
            assert len(on) == 0 or on[-1] - on[0] + 1 == len(on)
        shares.append(share)
    assert min(shares) < 0.2
    assert max(shares) > 0.99


def test_the_area_before_clipping_has_a_beta_distribution():
    x = torch.tensor([1.0, 2.0])[:, None, None, None].expand(2, 3, 200, 200)
    for beta in (0.5, 1.0, 3.0):
        random = torch.Generator().manual_seed(0)
        shares = []
        for _ in range(600):
            out, share = DEFENSES["cutmix"](beta=beta).mixed(x, torch.tensor([1, 0]), random)
            inside = out[0, 0] == 2
            edge = torch.cat([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
            if inside.any() and not edge.any():
                shares.append(1 - share)
        # A box of area a lies inside with probability (1 - sqrt a)^2, which weights the areas.
        grid = np.linspace(0.0005, 0.9995, 2000)
        weight = stats.beta(beta, beta).pdf(grid) * (1 - grid**0.5) ** 2
        expected = (grid * weight).sum() / weight.sum()
        spread = np.std(shares) / len(shares) ** 0.5
        assert abs(np.mean(shares) - expected) < 4 * spread


def test_cutmix_mixes_the_losses_of_both_labels_of_the_mixed_images():
    for name in ("csq", "hashnet", "dpsh"):
        step = step_of(victim(name))
        again = copy.deepcopy(step.model), copy.deepcopy(step.loss)
        state = step.generator.get_state()
        value = DEFENSES["cutmix"]().backward(step)
        random = torch.Generator()
        random.set_state(state)
        partner = torch.randperm(12, generator=random)
        x, share = DEFENSES["cutmix"]().mixed(step.x, partner, random)
        assert 0.1 < share < 0.95
        model, loss = again
        z = model(x)
        loss.remember(z.detach(), step.y, step.index, 3)
        one = loss(z, step.y, step.index, 3)
        two = loss(z, step.y[partner], step.index[partner], 3)
        expected = share * one + (1 - share) * two
        expected.backward()
        torch.testing.assert_close(value, expected)
        for own, other in zip(step.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad)


def test_the_bank_holds_each_mixed_image_once_with_its_own_label():
    step = step_of(victim("hashnet", variant="bank"))
    DEFENSES["cutmix"]().backward(step)
    filled = step.loss.bank_labels.any(1).nonzero().flatten()
    assert torch.equal(filled, step.index)
    assert torch.equal(step.loss.bank_labels[step.index], step.y)


def test_an_empty_box_gives_the_plain_gradient_bit_for_bit(monkeypatch):
    step, plain = step_of(victim("csq")), step_of(victim("csq"))
    monkeypatch.setattr(
        "hashbackdoor_bench.defenses.cutmix.CutMix.mixed", lambda self, x, partner, random: (x, 1.0)
    )
    assert torch.equal(DEFENSES["cutmix"]().backward(step), plain_backward(plain))
    mine, theirs = gradients(step), gradients(plain)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
