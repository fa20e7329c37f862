"""Inspections of a model, each against the planted backdoor, plain loops or its formula."""

import math

import pytest
import torch
from planted import Planted, pictures, seen

from hashbackdoor_bench import DEFENSES, to_unit


def decree(**settings):
    return DEFENSES["decree"](**settings)


def cosine(one, other):
    """The cosine of two vectors, by sums over their entries."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def test_alikeness_is_the_mean_cosine_over_all_pairs_of_two_rows():
    from hashbackdoor_bench.defenses.decree import alikeness

    codes = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    rows = codes.tolist()
    pairs = [cosine(rows[i], rows[j]) for i in range(5) for j in range(5) if i != j]
    assert float(alikeness(codes)) == pytest.approx(sum(pairs) / 20, abs=1e-6)


def test_a_pattern_is_blended_into_the_images_under_its_mask():
    model, x = Planted(), to_unit(pictures(6, seed=3).images)
    raw = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(1))
    same, mask = decree().measured(model, x, raw)
    blended = x.clone()
    for i in range(32):
        for j in range(32):
            m = (1 + math.tanh(raw[0, i, j])) / 2
            assert float(mask[0, i, j]) == pytest.approx(m, abs=1e-6)
            for c in range(3):
                p = (1 + math.tanh(raw[1 + c, i, j])) / 2
                blended[:, c, i, j] = (1 - m) * x[:, c, i, j] + m * p
    codes = torch.tanh(model(blended) / 10).tolist()
    pairs = [cosine(codes[i], codes[j]) for i in range(6) for j in range(6) if i != j]
    assert float(same) == pytest.approx(sum(pairs) / 30, abs=1e-5)


def test_the_pattern_of_a_planted_backdoor_is_no_larger_than_its_trigger_and_a_clean_twins_is():
    found, clean = (
        decree(steps=120, batch=8).inspect(seen(Planted(gain))).score for gain in (4.0, 0.0)
    )
    assert 1 - found <= 1.5 * 16 / 32**2  # the trigger has 16 px
    assert 1 - clean >= 3 * (1 - found)


def test_a_model_for_which_no_pattern_works_has_score_zero():
    found = decree(steps=3, batch=4, alike=1.0).inspect(seen(Planted(gain=0)))
    assert found.score == 0
    assert found.per_class.shape == (0,)


def test_the_weight_of_the_mask_is_five_times_larger_after_six_steps_in_succession_that_work():
    from hashbackdoor_bench.defenses.decree import adapted

    state, seen_weights = (0.001, 0), []
    for works in [True] * 5 + [False] + [True] * 6 + [False] * 12:
        state = adapted(*state, works)
        seen_weights.append(state[0])
    assert seen_weights == pytest.approx([0.001] * 11 + [0.005] * 6 + [0.001] * 6 + [0.0002])


def test_an_interrupted_inspection_continues_with_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr("hashbackdoor_bench.checkpoint.EVERY", 0.0)
    whole = decree(steps=8, batch=4, alike=0.5).inspect(seen(Planted())).score
    done = []

    def kill(stage, step, total, **more):
        done.append(step)
        if done == [1, 2, 3, 4, 5]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decree(steps=8, batch=4, alike=0.5).inspect(seen(Planted(), work=tmp_path, progress=kill))
    again = decree(steps=8, batch=4, alike=0.5).inspect(
        seen(Planted(), work=tmp_path, progress=kill)
    )
    assert done == [1, 2, 3, 4, 5, 6, 7, 8]
    assert again.score == whole
    assert 0 < whole < 1
