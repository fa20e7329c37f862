"""Defenses that change a training step, against plain loops and autograd."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hashbackdoor_bench.defenses import dpsgd
from planted import BITS, CLASSES, Planted, pictures
from scipy import stats
from torch import Tensor, nn

from hashbackdoor_bench import DEFENSES, VICTIMS, HashLoss, TrainStep, plain_backward, to_unit


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
    bank = {"variant": "bank", "exclude_self": True}  # its loss depends on the numbers of images
    for name, settings in (("csq", {}), ("hashnet", {}), ("hashnet", bank), ("dpsh", {})):
        step = step_of(victim(name, **settings))
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


# ---- dpsgd --------------------------------------------------------------------------------------


def item_gradients(step: TrainStep) -> list[list[Tensor]]:
    """The gradient of each image in each parameter, by one backward pass per image."""
    model, loss = copy.deepcopy(step.model).eval(), copy.deepcopy(step.loss)
    parameters = [*model.parameters(), *loss.parameters()]
    found = []
    for number in range(len(step.x)):
        one = slice(number, number + 1)
        value = loss(model(step.x[one]), step.y[one], step.index[one], step.step)
        made = torch.autograd.grad(value, parameters, allow_unused=True)
        pairs = zip(parameters, made, strict=True)
        found.append([torch.zeros_like(p) if g is None else g for p, g in pairs])
    return found


def shaped(step: TrainStep, **settings) -> list[Tensor]:
    DEFENSES["dpsgd"](**settings).backward(step)
    parameters = [*step.model.parameters(), *step.loss.parameters()]
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


@pytest.mark.parametrize("name", ["csq", "dpn", "greedyhash"])
def test_without_noise_and_clipping_the_gradient_is_the_plain_one_in_eval_mode(name):
    step = step_of(victim(name))
    plain = replace(step, model=copy.deepcopy(step.model).eval(), loss=copy.deepcopy(step.loss))
    value = plain_backward(plain)
    found = shaped(step, clip=1e9, sigma=0, statistics="frozen")
    expected = [*plain.model.parameters(), *plain.loss.parameters()]
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, torch.zeros_like(own) if other.grad is None else other.grad)
    assert value.isfinite()
    assert step.model.training


@pytest.mark.parametrize("name", ["csq", "greedyhash"])
def test_norms_of_images_are_those_of_one_backward_pass_each(name, monkeypatch):
    monkeypatch.setattr(dpsgd, "TOGETHER", 5)
    step = step_of(victim(name))
    step.model.eval()
    expected = [sum(float((g**2).sum()) for g in one) ** 0.5 for one in item_gradients(step)]
    np.testing.assert_allclose(dpsgd.item_norms(step).numpy(), expected, rtol=1e-4)


def test_each_gradient_is_clipped_to_c_before_the_mean():
    step = step_of(victim("csq"))
    each = item_gradients(step)
    norms = torch.tensor([sum(float((g**2).sum()) for g in one) ** 0.5 for one in each])
    for clip in (0.0, float(norms.sort().values[4])):
        bound = clip or float(norms.median())
        factor = [min(1.0, bound / float(norm)) for norm in norms]
        assert min(factor) < 0.9
        again = step_of(victim("csq"))
        found = shaped(again, clip=clip, sigma=0, statistics="frozen")
        for number, own in enumerate(found):
            expected = sum(f * one[number] for f, one in zip(factor, each, strict=True)) / 12
            torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-7)


def test_one_image_moves_the_sum_by_c_at_most():
    whole, rest = step_of(victim("csq")), step_of(victim("csq"))
    rest = replace(rest, x=rest.x[1:], y=rest.y[1:], index=rest.index[1:])
    clip = 0.5 * float(dpsgd.item_norms(replace(whole, model=copy.deepcopy(whole.model).eval()))[0])
    settings = {"clip": clip, "sigma": 0, "statistics": "frozen"}
    one, two = shaped(whole, **settings), shaped(rest, **settings)
    moved = sum(float(((12 * a - 11 * b) ** 2).sum()) for a, b in zip(one, two, strict=True)) ** 0.5
    assert moved == pytest.approx(clip, rel=1e-3)


def test_the_noise_has_a_deviation_of_sigma_c_over_n_and_comes_from_the_step():
    quiet, noisy, same = (step_of(victim("csq")) for _ in range(3))
    calm = shaped(quiet, clip=2.0, sigma=0)
    loud, again = (shaped(step, clip=2.0, sigma=0.3) for step in (noisy, same))
    assert all(torch.equal(a, b) for a, b in zip(loud, again, strict=True))
    noise = torch.cat([(a - b).flatten() for a, b in zip(loud, calm, strict=True)])
    noise = noise[noise != 0]
    assert len(noise) > 1000
    assert float(noise.std()) == pytest.approx(0.3 * 2 / 12, rel=0.05)


def test_only_running_statistics_follow_the_batch():
    for statistics in ("running", "frozen"):
        step = step_of(victim("csq"))
        norm = step.model.backbone.norm
        before = norm.running_mean.clone()
        shaped(step, statistics=statistics)
        assert torch.equal(norm.running_mean, before) == (statistics == "frozen")
