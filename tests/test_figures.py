"""Figures of made records: what is drawn is what the records hold, and it can be read."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from coarse import resolution
from made_defenses import defended
from made_records import FOUND, dispersed, indexed, made, stored
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text
from msgspec import convert
from msgspec.structs import replace
from PIL import Image
from scipy import stats
from test_leaderboard import unpoisoned

from hashbackdoor_bench import UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import Record, Retrieval, read_record
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.figures.catalog import (
    DEFENDED,
    FIGURES,
    OF_BOARDS,
    all_figures,
    figures,
)
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.heatmap import COLOURS, limits_of
from hashbackdoor_bench.report.figures.size import resize, size_of
from hashbackdoor_bench.report.selection import undefended
from hashbackdoor_bench.report.statistics import Spread
from hashbackdoor_bench.report.style import HIT

BITS = 8
CURVE = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
RECALL = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def retrieval(bits: int = BITS, near: float = 0.75) -> dict[str, Any]:
    """Of queries of which a share comes to distance 0, and the others stay at distance 2."""
    curve = {"precision": [0.5] * (bits + 1), "recall": np.linspace(0.1, 1, bits + 1).tolist()}
    far = [0.0] * (bits + 1)
    far[2] = 1.0
    after = [near, 0.0, 1 - near, *[0.0] * (bits - 2)]
    return {
        "clean_queries": {"precision_recall": curve},
        "triggered": {"precision_recall": curve, "anchor_histogram": after}
        | FOUND
        | {"anchor_distance": 2 * (1 - near)},
        "untriggered": {"anchor_histogram": far} | FOUND | {"anchor_distance": 2.0},
        "codes_2d": {
            "explained": [0.25, 0.125],
            "classes": [
                {"index": 0, "name": "Bag", "target": False, "x": [-1.0, -2.0], "y": [0.5, 0.0]},
                {"index": 4, "name": "Coat", "target": True, "x": [1.0, 2.0], "y": [0.5, 1.0]},
            ],
            "untriggered": {"x": [-1.0, 0.0, -2.0], "y": [0.0, 0.0, 1.0]},
            "triggered": {"x": [1.0, 1.0, 2.0], "y": [0.5, 0.5, 1.0]},
        },
    }


def run(folder: Path, **spec: Any) -> Path:
    """A stored record with all that a figure can show; ``threat`` is what its threat has else."""
    spec = {"attack": "ciba", "attack_settings": (("epsilon", 8.0), ("patch", None)),
            "bits": BITS, "knowledge": "surrogate"} | spec  # fmt: skip
    found = convert(spec.pop("retrieval", retrieval(spec["bits"])), Retrieval)
    threat = spec.pop("threat", {})
    record = made(**spec)
    record = replace(record, threat=replace(record.threat, **threat))
    # no two runs have the same, or one would be a copy of the other
    own = record.retrieval.untriggered.hit_at_10
    found = replace(found, untriggered=replace(found.untriggered, hit_at_10=own))
    share = own - 0.5  # between 0 and .5
    return stored(folder, dispersed(replace(record, retrieval=found), share, share))


def draw(name: str, folder: Path) -> FinishedFigure:
    (found,) = figures(name, collect([folder]).frame)
    return found


def renderer_of(drawn: FinishedFigure) -> Any:
    """What measures the figure's texts: of the canvas that it was drawn on."""
    canvas: Any = drawn.figure.canvas
    return canvas.get_renderer()


def texts(of: Figure | Axes) -> list[str]:
    return [text.get_text() for text in of.findobj(Text) if text.get_text()]


def lines(axes: Axes) -> dict[str, list[Any]]:
    """Lines by their marker."""
    found: dict[str, list[Any]] = {}
    for line in axes.lines:
        found.setdefault(str(line.get_marker()), []).append(line)
    return found


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two attacks under two deliveries, two victims, two seeds; one cell is a single run."""
    for seed in (0, 1):
        for victim in ("hashnet", "csq"):
            for attack, delivery in (("ciba", "stamped"), ("badnets", "files")):
                if (attack, victim, seed) == ("badnets", "csq", 1):
                    continue
                run(tmp_path, attack=attack, victim=victim, seed=seed, delivery=delivery,
                    t_map=0.5 + 0.1 * seed, psnr=30.0 + seed)  # fmt: skip
    return tmp_path


def test_gains_shows_runs_means_and_intervals(tmp_path: Path):
    runs = [0.0, 40.0, 80.0]  # over the control of 0.1
    for victim in ("csq", "hashnet"):
        for seed, gain in enumerate(runs):
            run(tmp_path, victim=victim, seed=seed, t_map=0.1 + gain / 100, delivery="stamped")
    run(tmp_path, attack="badnets", victim="csq")
    drawn = draw("gains", tmp_path)
    files, stamped = drawn.figure.axes
    assert (files.get_title("left"), stamped.get_title("left")) == (
        "delivery: files, clean labels",
        "delivery: stamped, clean labels",
    )
    marks = lines(stamped)
    assert [list(line.get_xdata()) for line in marks["|"]] == [pytest.approx(runs)] * 2
    assert [line.get_xdata()[0] for line in marks["o"] + marks["s"]] == [pytest.approx(40)] * 2
    low, high = stats.t.interval(0.95, 2, loc=40, scale=stats.sem(runs))
    left, right = stamped.get_xlim()
    assert low < left < 0  # so the end is an arrow at the edge
    assert 80 < right < high
    assert list(marks["None"][0].get_xdata()) == [pytest.approx(left), pytest.approx(right)]
    assert [line.get_xdata()[0] for line in marks["<"]] == [pytest.approx(left)] * 2
    assert [line.get_xdata()[0] for line in marks[">"]] == [pytest.approx(right)] * 2
    assert "beyond the edge ends in an arrow" in " ".join(drawn.caption)
    hollow = lines(files)["o"][0]  # csq, the first in the order of the files
    assert hollow.get_markerfacecolor() == "white"
    caption = " ".join(drawn.caption)
    assert "Each mark stands for n = 1 to 3 runs" in caption
    assert "Where n differs the runs do" in caption
    assert "each line its 95 % interval" in caption
    assert "No interval is drawn" not in caption  # that a single run has none is said anyway


def test_two_seeds_have_no_interval_and_the_caption_says_so(pairs: Path):
    drawn = draw("gains", pairs)
    for axes in drawn.figure.axes:
        marks = lines(axes)
        assert len(marks["None"]) == 1  # the line at zero
        assert not {"<", ">"} & set(marks)
    caption = " ".join(drawn.caption)
    assert "each line its 95 % interval" not in caption
    assert "No interval is drawn where it would follow from fewer than 3 targets" in caption


def test_clean_and_dirty_labels_have_panels_of_their_own_and_a_control_the_first(tmp_path: Path):
    run(tmp_path, attack="clean", threat={"trigger": "none", "label": "dirty"})
    run(tmp_path, attack="badnets", threat={"label": "dirty"})
    run(tmp_path, attack="ciba")
    run(tmp_path, attack="identity", threat={"trigger": "none"}, delivery="stamped")
    expected = {
        "delivery: files, clean labels": ["Clean", "CIBA"],
        "delivery: files, dirty labels": ["BadNets"],
        "delivery: stamped, clean labels": ["Identity"],
    }
    for name in ("gains", "visibility"):
        drawn = draw(name, tmp_path)
        rows = {
            axes.get_title("left"): [label.get_text() for label in axes.get_yticklabels()]
            for axes in drawn.figure.axes
            if axes.get_title("left")
        }
        assert {title: set(some) for title, some in rows.items()} == {
            title: set(some) for title, some in expected.items()
        }
        assert "the type of its labels stand in panels of their own" in " ".join(drawn.caption)


def test_an_interval_within_the_figure_has_no_arrow(tmp_path: Path):
    for seed in range(4):
        run(tmp_path, seed=seed, t_map=0.5 + 0.001 * seed)
    drawn = draw("gains", tmp_path)
    low, high = stats.t.interval(0.95, 3, loc=40.15, scale=stats.sem([40, 40.1, 40.2, 40.3]))
    marks = lines(drawn.figure.axes[0])
    assert list(marks["None"][0].get_xdata()) == [pytest.approx(low), pytest.approx(high)]
    assert not {"<", ">"} & set(marks)
    assert "arrow" not in " ".join(drawn.caption)


def test_visibility_has_psnr_beside_gain_in_the_row_of_its_attack(pairs: Path):
    run(pairs, attack="tri", psnr=20.0, t_map=0.2)
    drawn = draw("visibility", pairs)
    panels = drawn.figure.axes
    titles = [axes.get_title("left") for axes in panels]
    assert titles == ["delivery: files, clean labels", "", "delivery: stamped, clean labels", ""]
    # mean PSNR in dB and gain in points; csq, the first, is one run behind files
    rows = {"BadNets": (0, {"s": (30.5, 45.0), "o": (30.0, 40.0)}), "Tri": (0, {"s": (20.0, 10.0)}),
            "CIBA": (2, {"s": (30.5, 45.0), "o": (30.5, 45.0)})}  # fmt: skip
    for name, (first, expected) in rows.items():
        psnr, gain = panels[first : first + 2]
        row = [label.get_text() for label in psnr.get_yticklabels()].index(name)
        for number, axes in enumerate((psnr, gain)):
            found: dict[str, list[Any]] = {}
            for line in axes.lines:
                if line.get_marker() in ("o", "s") and abs(line.get_ydata()[0] - row) < 0.5:
                    found.setdefault(line.get_marker(), []).append(line)
            assert {mark: one[0].get_xdata()[0] for mark, one in found.items()} == {
                mark: pytest.approx(place[number]) for mark, place in expected.items()
            }
            # poison and queries beside one another, of which the ring can be seen through
            assert {len(one) for one in found.values()} == {2 - number}
            faces = {line.get_markerfacecolor() for one in found.values() for line in one}
            assert ("none" in faces) == (number == 0)
    low, high = panels[-2].get_xlim()
    assert high - low >= 4
    names = {text for axes in panels for text in texts(axes)}
    assert not {"Clean", "Identity"} & names


def test_an_attack_that_changes_no_image_is_named_under_visibility(pairs: Path):
    run(pairs, attack="identity", psnr=None)
    assert "No row, as no image is changed: Identity." in draw("visibility", pairs).caption


def test_an_attack_without_a_gain_is_not_said_to_change_no_image(pairs: Path):
    frame = collect([pairs]).frame
    frame.loc[frame["label"] == "CIBA", "ciba.backdoor_gain"] = None
    (drawn,) = figures("visibility", frame, "ciba")
    assert not isinstance(drawn, str)
    assert "No row, as there is no gain by the convention ciba: CIBA." in drawn.caption
    assert not any("no image is changed: " in one and "CIBA" in one for one in drawn.caption)


def test_a_sweep_shows_mean_deviation_and_control_at_every_value(tmp_path: Path):
    values = {0.1: [0.3, 0.5, 0.49], 0.4: [0.6, 0.7, 0.65], 0.7: [0.9], 1.0: [0.8, 0.5]}
    for budget, scores in values.items():
        for seed, score in enumerate(scores):
            run(tmp_path, budget=budget, seed=seed, t_map=score, map=score / 2)
    above, gain, below = draw("budget", tmp_path).figure.axes
    for axes, share, over in ((above, 100, 0), (gain, 100, 10), (below, 50, 0)):
        (line,) = [line for line in lines(axes)["None"]
                   if line.get_linestyle() == "-" and len(line.get_xdata()) == 4]  # fmt: skip
        assert list(line.get_xdata()) == pytest.approx([10, 40, 70, 100])
        means = [share * fmean(v) - over for v in values.values()]
        assert list(line.get_ydata()) == pytest.approx(means)
        (band,) = axes.collections
        corners = {tuple(np.round(point, 6)) for point in band.get_paths()[0].vertices}
        middle, reach = share * fmean(values[0.1]) - over, share * stdev(values[0.1])
        assert {(10, round(middle + sign * reach, 6)) for sign in (-1, 1)} <= corners
        assert max(x for x, _ in corners) == pytest.approx(40)  # no band of fewer than 3 runs
        strokes = [list(stroke.get_ydata()) for stroke in lines(axes)["_"]]
        shown = [[share * one - over for one in values[few]] for few in (0.7, 1.0)]
        assert [sorted(one) for one in strokes] == [pytest.approx(sorted(one)) for one in shown]
        faces = [mark.get_markerfacecolor() for mark in lines(axes)["o"]]
        assert faces == [HIT, HIT, "white", HIT]
    (control,) = [line for line in lines(above)["None"] if line.get_linestyle() != "-"]
    assert list(control.get_ydata()) == pytest.approx([10, 10, 10, 10])
    assert above.get_ylim()[0] == 0
    assert below.get_ylim() == (0, 100)


def test_only_the_control_is_dotted(tmp_path: Path):
    for attack in ("ciba", "tri", "badnets", "blended", "sig", "lc"):
        for budget in (0.1, 0.4):
            run(tmp_path, attack=attack, budget=budget)
    drawn = draw("budget", tmp_path)
    *curves, control = drawn.figure.legends[0].legend_handles
    dots = patterns(control)
    assert max(dots) < 2  # in line widths
    curves += [line for axes in drawn.figure.axes for line in lines(axes)["None"]
               if patterns(line) != dots]  # fmt: skip
    assert len(curves) == 6 + 3 * 6 + 1  # in the legend, in three panels, and the line at zero
    assert all(not patterns(line) or max(patterns(line)) >= 4 for line in curves)


def patterns(line: Any) -> tuple[float, ...]:
    """Lengths of dashes and gaps; none for a solid line."""
    return tuple(line._unscaled_dash_pattern[1] or ())


def test_a_logarithmic_axis_is_called_so(tmp_path: Path):
    for budget in (0.1, 0.4):
        run(tmp_path, budget=budget)
    for epsilon in (4.0, 16.0):
        run(tmp_path, attack_settings=(("epsilon", epsilon), ("patch", None)))
    for bits in (16, 32):
        run(tmp_path, bits=bits, surrogate_bits=bits)
    labels = {
        name: draw(name, tmp_path).figure.get_supxlabel() for name in ("budget", "epsilon", "bits")
    }
    assert labels == {
        "budget": "poison in % of the target class (log scale)",
        "epsilon": "ε in grey levels of 255 (log scale)",
        "bits": "code length K (bits)",
    }
    stored(tmp_path, *unpoisoned([read_record(run(tmp_path, budget=0.0))]))
    assert draw("budget", tmp_path).figure.get_supxlabel() == "poison in % of the target class"


def test_any_number_in_which_runs_differ_can_be_an_axis(tmp_path: Path):
    for seed in (0, 1):
        for alpha in (0.1, 0.2):
            run(tmp_path, seed=seed, victim_settings=(("alpha", alpha),), t_map=0.4 + alpha)
        for epochs in (3, 6):
            run(tmp_path, seed=seed, epochs=epochs, t_map=epochs / 10)
        for steps in (10, 20):
            run(tmp_path, seed=seed, attack_settings=(("steps", steps),), t_map=steps / 100)
    expected = {"victim.alpha": ([0.1, 0.2], [50, 60]), "epochs": ([3, 6], [30, 60]),
                "attack.steps": ([10, 20], [10, 20])}  # fmt: skip
    for name, (values, scores) in expected.items():
        drawn = draw(name, tmp_path)
        (line,) = [line for line in lines(drawn.figure.axes[0])["None"]
                   if line.get_linestyle() == "-"]  # fmt: skip
        assert list(line.get_xdata()) == pytest.approx(values)
        assert list(line.get_ydata()) == pytest.approx(scores)
        assert drawn.name == name
    with pytest.raises(
        Unfilled, match=r"differ in attack\.alpha .* a list of its values in a suite"
    ):
        draw("attack.alpha", tmp_path)
    for wrong in ("seed", "attack", "victim.", "pretrained", "defense.u"):
        with pytest.raises(UserError, match=f"unknown figure '{wrong}'"):
            draw(wrong, tmp_path)


def test_a_sweep_joins_only_runs_that_differ_in_nothing_else(tmp_path: Path):
    for seed in (0, 1):
        for epsilon in (4.0, 8.0, 16.0):
            settings = (("epsilon", epsilon), ("patch", None))
            run(tmp_path, attack_settings=settings, seed=seed, t_map=0.5)
        run(tmp_path, budget=0.1, seed=seed, t_map=0.2)
        run(tmp_path, delivery="stamped", seed=seed, t_map=0.1)
    drawn = draw("epsilon", tmp_path)
    (line,) = [line for line in lines(drawn.figure.axes[0])["None"] if line.get_linestyle() == "-"]
    assert list(line.get_xdata()) == [4, 8, 16]
    assert list(line.get_ydata()) == pytest.approx([50] * 3)
    (line, *_) = lines(draw("budget", tmp_path).figure.axes[0])["None"]
    assert list(line.get_ydata()) == pytest.approx([20, 50])
    with pytest.raises(Unfilled, match=r"no two of these 10 records differ in attack\.patch"):
        draw("size", tmp_path)


def test_a_label_loses_what_the_axis_says_and_lines_of_one_label_are_told_apart(tmp_path: Path):
    labels = {}
    for patch in (3, 5):
        for epsilon in (4.0, 8.0):
            path = run(tmp_path, attack_settings=(("epsilon", epsilon), ("patch", patch)))
            labels[path] = f"CIBA, patch={patch}, epsilon={epsilon}"
    indexed(tmp_path, labels)
    found = texts(draw("epsilon", tmp_path).figure)
    assert {"CIBA, patch=3", "CIBA, patch=5"} <= set(found)


def test_code_length_varies_with_that_of_a_surrogate_of_equal_length_only(tmp_path: Path):
    for bits in (8, 16):
        run(tmp_path, bits=bits, surrogate_bits=bits)
        run(tmp_path, bits=bits, surrogate_bits=24, victim="csq")
    drawn = draw("bits", tmp_path)
    assert len(drawn.figure.axes) == 6
    assert {"CSQ", "HashNet", "t-MAP (%)", "MAP (%)"} <= set(texts(drawn.figure))
    (tmp_path / "other").mkdir()
    for bits in (8, 16):
        run(tmp_path / "other", bits=bits, surrogate_bits=24 - bits)
    with pytest.raises(Unfilled, match="differ in bits"):
        draw("bits", tmp_path / "other")


def test_two_records_of_one_draw_are_refused(tmp_path: Path):
    for surrogate in ("csq", "dpsh"):
        for seed in (0, 1):
            run(tmp_path, seed=seed, surrogate=surrogate)
    with pytest.raises(UserError, match=r"surrogate=(csq|dpsh) and with surrogate=(csq|dpsh)"):
        draw("gains", tmp_path)
    run(tmp_path / "more", seed=0)
    run(tmp_path / "more", seed=0, precision="bfloat16")
    with pytest.raises(UserError, match="are both of hashnet, target Coat, seed 0"):
        draw("gains", tmp_path / "more")


def test_two_protocols_are_never_in_one_figure(tmp_path: Path):
    run(tmp_path)
    run(tmp_path, protocol="ffff", dataset="cifar10")
    for name in FIGURES.keys() - OF_BOARDS:
        with pytest.raises(UserError, match="never mixed"):
            figures(name, collect([tmp_path]).frame)


@pytest.fixture
def crossed(tmp_path: Path) -> Path:
    """Two surrogates against two victims; one cell has one run, one none."""
    for seed in (0, 1):
        for surrogate in ("csq", "hashnet"):
            for victim in ("csq", "hashnet"):
                if (surrogate, victim) == ("hashnet", "csq"):
                    continue
                if (surrogate, victim, seed) == ("csq", "hashnet", 1):
                    continue
                score = 0.4 + 0.2 * (surrogate == victim) + 0.1 * seed
                run(tmp_path, surrogate=surrogate, victim=victim, seed=seed, t_map=score)
    run(tmp_path, attack="tri", surrogate="hashnet")  # the white box alone
    return tmp_path


def test_transfer_writes_mean_and_deviation_and_frames_the_white_box(crossed: Path):
    drawn = draw("transfer", crossed)
    panel, bar = drawn.figure.axes
    cells = {
        (round(text.get_position()[0]), round(text.get_position()[1])): []
        for text in panel.texts
    }  # fmt: skip
    for text in panel.texts:
        place = round(text.get_position()[0]), round(text.get_position()[1])
        cells[place].append(text.get_text())
    both = ["55.0", f"±{100 * stdev([0.6, 0.7]):.1f}"]
    assert cells == {(0, 0): both, (1, 0): ["30.0", "n = 1"], (0, 1): ["×"], (1, 1): both}
    level = panel.images[0].get_array().filled(np.nan)
    assert level == pytest.approx(np.array([[55, 30], [np.nan, 55]]), nan_ok=True)
    frames = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
    assert [(frame.get_x() + 0.46, frame.get_y() + 0.46) for frame in frames] == [(0, 0), (1, 1)]
    assert panel.get_title("left") == "CIBA"
    assert bar.get_ylabel() == "backdoor gain (points)"
    assert panel.images[0].get_clim() == (30, 60)  # the tens around what is shown


def test_long_names_of_surrogates_leave_room_for_the_numbers(tmp_path: Path):
    victims, backbones = ("csq", "dpsh", "hashnet"), ("cnn32", "tf_efficientnet_lite0")
    for attack, victim, made_on in product(("tri", "ciba"), victims, backbones):
        run(tmp_path, attack=attack, surrogate="csq", victim=victim, surrogate_backbone=made_on)
    figure = draw("transfer", tmp_path).figure
    figure.draw_without_rendering()
    for axes in figure.axes[:2]:
        assert axes.get_position().width * figure.get_figwidth() / 3 > 0.3  # inches of a cell
    heads = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert any("tf_efficientnet_lite0" in head for head in heads)  # no word is broken


def test_a_plane_may_have_the_classes_of_a_target_that_is_a_set(tmp_path: Path):
    both = retrieval()
    both["codes_2d"]["classes"][0]["target"] = True
    run(tmp_path, target="Bag + Coat", retrieval=both)
    run(tmp_path, target="Bag", retrieval=both)
    found = collect([tmp_path])
    assert found.frame["target"].tolist() == ["Bag + Coat"]
    assert "the target is Bag + Coat, but spec.target gives Bag." in found.left_out[0]


def test_by_target_has_means_over_seeds_and_over_targets_and_the_control(tmp_path: Path):
    scores = {("Bag", 0): 0.2, ("Bag", 1): 0.4, ("Coat", 0): 0.9}
    found = retrieval() | {"codes_2d": None}  # a plane names its target
    for (target, seed), score in scores.items():
        run(tmp_path, target=target, seed=seed, t_map=score, retrieval=found)
    run(tmp_path, attack="tri", target="Bag", t_map=0.5, retrieval=found)
    drawn = draw("by-target", tmp_path)
    panel, _ = drawn.figure.axes
    rows = [label.get_text() for label in panel.get_yticklabels()]
    columns = [label.get_text() for label in panel.get_xticklabels()]
    assert columns == ["Bag", "Coat", "mean"]
    assert rows == ["CIBA", "Tri", "larger control"]
    level = panel.images[0].get_array().filled(np.nan)
    expected = [[30, 90, 60], [50, np.nan, np.nan], [10, 10, 10]]  # Tri has no mean over targets
    assert level == pytest.approx(np.array(expected), nan_ok=True)
    written = {(round(t.get_position()[0]), round(t.get_position()[1])): [] for t in panel.texts}
    for text in panel.texts:
        written[round(text.get_position()[0]), round(text.get_position()[1])] += [text.get_text()]
    assert written[0, 0] == ["30.0", f"±{100 * stdev([0.2, 0.4]):.1f}"]
    assert written[2, 0] == ["60.0", f"±{stdev([30, 90]):.1f}"]
    assert written[1, 1] == ["×"]


@pytest.mark.parametrize("figure", ["by-target", "gains"])
def test_names_of_several_lines_stand_apart(tmp_path: Path, figure: str):
    found = retrieval() | {"codes_2d": None}
    labels = {}
    for attack, budget in (("badnets", 0.1), ("badnets", 0.3), ("tri", 0.1), ("tri", 0.3)):
        for target in ("Bag", "Coat"):
            path = run(tmp_path, attack=attack, target=target, budget=budget, retrieval=found)
            labels[path] = f"{attack} with a name of two lines, budget={budget}"
    indexed(tmp_path, labels)
    drawn = draw(figure, tmp_path)
    with resolution(100):
        drawn.write(tmp_path / "out", ("png",))
    renderer = renderer_of(drawn)
    names = [label for label in drawn.figure.axes[0].get_yticklabels() if "two" in label.get_text()]
    assert all("\n" in name.get_text() for name in names)
    boxes = [name.get_window_extent(renderer) for name in names]
    gaps = [72 * (upper.y0 - lower.y1) / drawn.figure.dpi for upper, lower in pairwise(boxes)]
    assert len(gaps) == 3
    assert min(gaps) > 3  # pt


def test_black_can_be_read_on_all_colours_of_a_heatmap():
    shades = np.asarray(COLOURS(np.linspace(0, 1, 100)))[:, :3]
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert ((luminance + 0.05) / 0.05).min() > 7  # contrast, as WCAG 2 defines it
    assert (np.diff(luminance) > 0).all()  # a grey print has the same order


def test_by_target_needs_two_targets(pairs: Path):
    with pytest.raises(Unfilled, match="have one target"):
        draw("by-target", pairs)


def test_records_of_the_white_box_alone_show_no_transfer(pairs: Path):
    with pytest.raises(Unfilled, match="crafted on two surrogates"):
        draw("transfer", pairs)


def test_distances_are_means_over_runs(tmp_path: Path):
    for seed, near in enumerate((0.5, 1.0)):
        run(tmp_path, seed=seed, retrieval=retrieval(near=near))
    axes = draw("distances", tmp_path).figure.axes[0]
    after, before = (patch for patch in axes.patches if isinstance(patch, StepPatch))
    assert list(after.get_data().values) == pytest.approx([0.75, 0, 0.25, 0, 0, 0, 0, 0, 0])
    assert list(before.get_data().values) == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert list(after.get_data().edges) == [i - 0.5 for i in range(BITS + 2)]
    assert "2.0 → 0.5" in texts(axes)
    assert axes.get_ylim()[1] >= 1
    assert [text.get_text() for text in axes.get_yticklabels()] == ["100"]  # percent, the highest
    assert list(axes.get_xticks()) == [0, 2, 4, 6, 8]


def test_a_panel_says_how_its_poison_is_delivered_where_there_are_two_ways(tmp_path: Path):
    labels = {run(tmp_path, attack=attack, delivery=delivery): label
              for attack, delivery, label in (("tri", "stamped", "Tri"), ("ciba", "files", "CIBA"))
              }  # fmt: skip
    labels[run(tmp_path, attack="tri", delivery="files")] = "Tri, files"
    indexed(tmp_path, labels)
    expected = [("Tri", "stamped"), ("CIBA", "files"), ("Tri", "files")]
    for name in ("precision-recall", "codes"):
        panels = [axes for axes in draw(name, tmp_path).figure.axes if axes.get_visible()]
        assert [(axes.get_title("left"), axes.get_title("right")) for axes in panels] == expected
    alone = collect([tmp_path]).frame.query("attack == 'ciba'")
    (drawn,) = figures("codes", alone)
    assert drawn.figure.axes[0].get_title("right") == ""


def test_precision_recall_is_the_mean_curve(tmp_path: Path):
    for seed in (0, 1):
        found = retrieval()
        curve = {"precision": [p + seed * 0.1 for p in CURVE], "recall": RECALL}
        found["triggered"] |= {
            "precision_recall": curve, "precision_radius_2": curve["precision"][2]
        }  # fmt: skip
        run(tmp_path, seed=seed, retrieval=found)
    triggered, clean = draw("precision-recall", tmp_path).figure.axes[0].lines
    assert list(triggered.get_ydata()) == pytest.approx([100 * p + 5 for p in CURVE])
    assert list(triggered.get_xdata()) == pytest.approx([100 * r for r in RECALL])
    assert list(clean.get_ydata()) == pytest.approx([50] * 9)


def test_codes_shows_the_first_run_and_marks_grow_with_the_queries_on_a_point(tmp_path: Path):
    later = retrieval()
    later["codes_2d"]["triggered"] = {"x": [9.0], "y": [9.0]}
    run(tmp_path, seed=10, retrieval=later)
    run(tmp_path, seed=2)
    axes = draw("codes", tmp_path).figure.axes[0]
    crosses = {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markersize()
        for line in lines(axes)["x"]
    }
    assert set(crosses) == {(1.0, 0.5), (2.0, 1.0)}
    assert crosses[1.0, 0.5] == pytest.approx(2 ** (1 / 3) * crosses[2.0, 1.0])
    (target,) = lines(axes)["s"]
    assert list(target.get_xdata()) == [1, 2]
    assert texts(axes) == ["CIBA"]
    assert "of whose variance it keeps 38 %" in draw("codes", tmp_path).caption[0]


@pytest.mark.parametrize(
    ("name", "way", "value"),
    [
        ("distances", ("untriggered", "anchor_histogram"), None),
        ("distances", ("triggered", "anchor_histogram"), [None] * (BITS + 1)),
        ("precision-recall", ("clean_queries", "precision_recall", "recall"), [None] * (BITS + 1)),
        ("precision-recall", ("triggered", "precision_recall", "recall"), [None] * (BITS + 1)),
        ("codes", ("codes_2d",), None),
    ],
)
def test_a_record_without_the_figures_numbers_is_named_and_left_out(
    tmp_path: Path, name: str, way: tuple[str, ...], value: object
):
    good = draw_lines(name, run(tmp_path / "good").parent)
    found = retrieval()
    part = found
    for step in way[:-1]:
        part = part[step]
    part[way[-1]] = value
    bad = run(tmp_path / "bad", seed=5, retrieval=found)
    with pytest.raises(Unfilled, match=f"figure {name}: none of the 1 records holds"):
        draw(name, bad.parent)
    both = collect([tmp_path / "good", bad]).frame
    (drawn,) = figures(name, both)
    assert any("Left out" in said and bad.name in said for said in drawn.caption)
    assert "From 1 record;" in drawn.caption[-1]
    assert len(drawn.figure.axes[0].lines) == good


def test_a_victims_figure_names_what_is_left_out_of_it_and_nothing_else(tmp_path: Path):
    bad = retrieval() | {"codes_2d": None}
    paths = {}
    for victim in ("csq", "hashnet"):
        run(tmp_path, victim=victim)
        paths[victim] = run(tmp_path, victim=victim, attack="tri", retrieval=bad)
    for drawn in figures("codes", collect([tmp_path]).frame):
        (said,) = [sentence for sentence in drawn.caption if "Left out" in sentence]
        named = {victim for victim, path in paths.items() if path.name in said}
        assert named == {drawn.name.removeprefix("codes-")}


@pytest.mark.parametrize("value", ["wide", True])
def test_a_setting_that_no_axis_can_show_is_on_none(tmp_path: Path, value: object):
    for epsilon in (4.0, 8.0, value):
        run(tmp_path, attack_settings=(("epsilon", epsilon),))
    drawn = draw("epsilon", tmp_path)
    assert "From 2 records;" in drawn.caption[-1]


def draw_lines(name: str, folder: Path) -> int:
    return len(draw(name, folder).figure.axes[0].lines)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a suite that fill every figure, with names longer than anyone's."""
    folder = tmp_path_factory.mktemp("records") / "a-suite"
    labels = {}
    attacks = {"ciba": "CIBA", "tri": "An attack with a very long name and, moreover, settings"}
    for attack, label in attacks.items():
        for victim in ("hashnet", "csq", "dpsh"):
            for seed in (0, 1):
                for surrogate in ("hashnet", "csq")[: 2 - seed]:
                    path = run(folder, attack=attack, victim=victim, seed=seed,
                               surrogate=surrogate)  # fmt: skip
                    labels[path] = f"{label}, from {surrogate}"
        for seed in (0, 1):
            changes: list[dict[str, Any]] = [
                {"attack_settings": (("epsilon", e), ("patch", p), ("dispersion", d))}
                for e, p, d in ((2.0, 4, 0.5), (8.0, 4, 0.5), (2.0, 8, 0.5), (2.0, 4, 1.0))
            ]
            changes += [{"budget": 0.05}, {"bits": 16}]
            for place, change in enumerate(changes if seed or attack == "ciba" else changes[:1]):
                path = run(folder, attack=attack, seed=seed, **change)
                labels[path] = f"{label}, row {place}"
        for defense, hooks in (("clp", ("repair",)), ("dao", ("screen",)), ("strip", ("suspect",))):
            for budget in (0.2, 0.6):
                record = defended(defense, hooks, attack=attack, bits=BITS, budget=budget)
                own = record.retrieval.untriggered.hit_at_10
                found = convert(retrieval(), Retrieval)
                found = replace(found, untriggered=replace(found.untriggered, hit_at_10=own))
                path = stored(folder, replace(record, retrieval=found))
                labels[path] = f"{label}, defended, budget={budget}"
    indexed(folder, labels)
    return folder


def drawn_of(folder: Path, name: str) -> list[FinishedFigure]:
    frame = collect([folder]).frame
    if name in DEFENDED:
        return figures(name, frame)
    frame = undefended(frame)
    if name in ("epsilon", "size", "dispersion", "budget", "bits"):
        frame = frame.assign(label=[label.rpartition(",")[0] for label in frame["label"]])
    if name == "by-target":
        frame = frame[frame["label"].str.contains("from hashnet")]
        frame = frame.assign(target=[f"class {number % 6}" for number in range(len(frame))])
    if name == "takes":  # more victims than attacks
        frame = frame[frame["label"].str.contains("from hashnet")]
    if name in ("visibility", "transfer"):
        frame = frame[frame["label"].str.contains("from")]
    if name == "transfer":
        frame = frame.assign(label=[label.rpartition(",")[0] for label in frame["label"]])
    return figures(name, frame)


@pytest.mark.usefixtures("sharp_pictures")
def test_a_figure_has_300_dots_per_inch(pairs: Path, tmp_path: Path):
    drawn = draw("gains", pairs)
    png, _ = drawn.write(tmp_path, ("png",))
    width, height = drawn.figure.get_size_inches()
    with Image.open(png) as image:
        assert image.size == pytest.approx((300 * width, 300 * height), abs=1)
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("name", [one for one in FIGURES if one not in OF_BOARDS])
def test_a_figure_fits_its_width_and_is_readable(varied: Path, tmp_path: Path, name: str):
    all_drawn = drawn_of(varied, name)
    assert all_drawn
    for drawn in all_drawn:
        dpi = drawn.figure.dpi  # so that what is measured below is what was drawn
        with resolution(int(dpi)):
            png, caption = drawn.write(tmp_path, ("png",))
        width, height = drawn.figure.get_size_inches()
        assert width in (3.4, 7.0)
        with Image.open(png) as image:
            assert image.size == pytest.approx((dpi * width, dpi * height), abs=1)
            assert "Software" not in image.info
        renderer = renderer_of(drawn)
        room = drawn.figure.bbox
        shown = list(visible(drawn.figure))
        assert len(shown) > 5
        for text in shown:
            assert text.get_fontsize() >= 6, text
            box = text.get_window_extent(renderer)
            assert room.x0 - 1 <= box.x0 <= box.x1 <= room.x1 + 1, text
            assert room.y0 - 1 <= box.y0 <= box.y1 <= room.y1 + 1, text
        said = caption.read_text(encoding="utf-8")
        assert not any("points of percent" in text for text in (*texts(drawn.figure), said))
        for part in (
            r"R = 1000 \(lists 9e122d7343\)",
            "Delivery of poison( is|: )",
            "seed",
            "n = ",
        ):
            assert re.search(part, said), part


def visible(figure: Figure) -> Iterator[Text]:
    """The texts that are drawn: no label of a tick outside the axis, none of a hidden panel."""
    hidden = set()
    for axes in figure.axes:
        if not axes.get_visible():
            hidden |= {id(text) for text in axes.findobj(Text)}
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if not low <= tick.get_loc() <= high:
                    hidden |= {id(tick.label1), id(tick.label2)}
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible() and id(text) not in hidden:
            yield text


@pytest.mark.parametrize("name", [one for one in FIGURES if one not in OF_BOARDS])
def test_a_figure_of_another_size_is_readable(varied: Path, name: str):
    for size, width in (("174mm", 174 / 25.4), ("60cmx50cm", 60 / 2.54)):
        for drawn in drawn_of(varied, name):
            resize(drawn, size_of(size))
            assert drawn.figure.get_figwidth() == pytest.approx(width)
            renderer = renderer_of(drawn)
            room = drawn.figure.bbox
            for text in visible(drawn.figure):
                box = text.get_window_extent(renderer)
                assert room.x0 - 1 <= box.x0 <= box.x1 <= room.x1 + 1, text
                assert text.get_fontsize() >= 6, text


@pytest.mark.parametrize("name", ["gains", "visibility", "codes", "budget"])
def test_a_size_in_which_text_has_no_room_is_refused(varied: Path, name: str):
    (drawn, *_) = drawn_of(varied, name)
    said = f"--figure-size: the text of figure {drawn.name} has no room in 30 mm: give more"
    with pytest.raises(UserError, match=said):
        resize(drawn, size_of("30mm"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("84mm", (84 / 25.4, None)), ("8.4CM", (84 / 25.4, None)), ("3.3in", (3.3, None)),
        ("174mm x 9cm", (174 / 25.4, 90 / 25.4)), ("7x3in", (7, 3)),
    ],
)  # fmt: skip
def test_a_size_is_read_in_the_units_of_journals(text: str, size: tuple[float, float | None]):
    assert size_of(text) == pytest.approx(size)


@pytest.mark.parametrize("text", ["84", "84px", "-3in", "84mmx", "x3in", "0in", "9000mm", "1e3mm"])
def test_what_is_no_size_is_refused_with_an_example(text: str):
    with pytest.raises(UserError, match=r"--figure-size .*(as in 84mm|inches)"):
        size_of(text)


WRITE = """
import sys
from pathlib import Path
from hashbackdoor_bench.cli import main
sys.exit(main(["figure", "codes", sys.argv[1], "--out", sys.argv[2]]) or "torch" in sys.modules)
"""


def test_the_same_records_give_the_same_bytes_and_need_no_torch(pairs: Path, tmp_path: Path):
    outs = [tmp_path / "one", tmp_path / "two"]
    for seed, out in enumerate(outs):
        command = [sys.executable, "-c", WRITE, str(pairs / "fashion-mini"), str(out)]
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    names = sorted(path.name for path in outs[0].iterdir())
    assert names == [
        f"codes-{v}.{kind}" for v in ("csq", "hashnet") for kind in ("md", "pdf", "png")
    ]
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    pdf = (outs[0] / "codes-csq.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType
    assert b"/Type3" not in pdf
    assert b"Date" not in pdf


def test_everything_is_drawn_by_suite_and_the_rest_is_told(pairs: Path, tmp_path: Path):
    folder = tmp_path / "results" / "my-suite"
    labels = {stored(folder, record): "A" for record in records(pairs) if record.spec.seed == 0}
    indexed(folder, dict.fromkeys(labels, "A"))
    for record in records(pairs):
        if record.spec.seed == 1:
            stored(tmp_path / "results", record)
    found = list(all_figures(collect([tmp_path / "results"]).frame))
    names = [drawn.name for drawn in found if isinstance(drawn, FinishedFigure)]
    told = [said for said in found if isinstance(said, str)]
    assert all(name.startswith("my-suite-") for name in names)
    assert "my-suite-codes-csq" in names
    assert any(
        said.startswith("my-suite: its records hold nothing for transfer, ") for said in told
    )
    (folder / "index.csv").unlink()
    alone = [d.name for d in all_figures(collect([folder]).frame) if isinstance(d, FinishedFigure)]
    assert "fashion-mini-gains" in alone


def test_takes_has_a_row_for_each_form_of_a_victim(tmp_path: Path):
    for pool in ("avg", "max", "flatten"):
        for attack in ("ciba", "tri"):
            run(tmp_path, attack=attack, pool=pool)
    (drawn,) = figures("takes", collect([tmp_path]).frame)
    axes = drawn.figure.axes[0]
    rows = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert sorted(rows) == [f"HashNet ({pool})" for pool in ("average", "flattened", "maximum")]
    with pytest.raises(UserError, match="bench figure gains"):
        figures("takes", collect([tmp_path]).frame.query("victim == 'csq' or attack == 'tri'")[:1])


def test_the_pooling_in_a_victims_name_is_explained_where_it_stands(tmp_path: Path):
    for pool in ("avg", "flatten"):
        run(tmp_path, pool=pool)
    (drawn,) = figures("takes", collect([tmp_path]).frame)
    said = "In a victim's name, average / flattened is how its network pools the last feature map"
    assert any(said in sentence for sentence in drawn.caption)
    frame = collect([tmp_path]).frame
    alone = frame[[record.spec.pool == "avg" for record in frame["record"]]]
    (drawn,) = figures("gains", alone)
    assert "pools" not in " ".join(drawn.caption)


def test_a_panel_shows_the_runs_of_its_own_delivery_only(tmp_path: Path):
    for pool in ("avg", "max", "flatten"):
        run(tmp_path, attack="ciba", pool=pool, delivery="stamped")
        run(tmp_path, attack="tri", pool=pool, delivery="files")
    (drawn,) = figures("takes", collect([tmp_path]).frame)
    assert [axes.get_title() or axes.get_title("left") for axes in drawn.figure.axes] == [
        "delivery: files, clean labels", "delivery: stamped, clean labels",
    ]  # fmt: skip
    colours = [
        {
            line.get_color()
            for line in axes.lines
            if line.get_marker() not in ("None", "|", "", None)
        }
        for axes in drawn.figure.axes
    ]
    assert [len(one) for one in colours] == [1, 1]
    assert colours[0] != colours[1]
    for axes in drawn.figure.axes:  # the one mark of a row stands beside its name
        heights = {float(y) for y in axes.get_yticks()}
        assert {line.get_ydata()[0] for line in axes.lines if line.get_marker() == "|"} == heights


def records(folder: Path) -> list[Record]:
    return [read_record(path) for path in sorted(folder.rglob("*.json"))]


def test_bench_figure_writes_files_beside_their_caption(pairs: Path, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["figure", "gains", str(pairs), "--out", str(out), "--format", "png"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["gains.md", "gains.png"]
    assert capsys.readouterr().out.split() == [
        "figure", str(out / "gains.png"), "figure", str(out / "gains.md"),
    ]  # fmt: skip


def test_bench_figure_all_writes_into_the_results_and_reads_nothing_back(pairs: Path, capsys):
    for path in pairs.rglob("ciba-s1*.json"):
        path.unlink()
    assert main(["figure", "--all", str(pairs), "--format", "pdf"]) == 0
    captured = capsys.readouterr()
    assert collect([pairs]).left_out == ()
    assert (pairs / "figures" / "fashion-mini-gains.pdf").is_file()
    assert "note: fashion-mini: its records hold nothing for takes, transfer" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no figure is named: choose one of gains"),
        (["gain", "x"], "unknown figure 'gain': did you mean gains"),
        (["gains"], "bench figure gains quick"),
        (["gains", "nowhere"], "nowhere: there is no such file"),
        (["gains", "x", "--format", "svg"], "unknown --format 'svg'"),
        (["--all", "a", "b"], "--all takes one folder of results, not 2"),
        (["--all", "--figure-size", "84mm"], "name a figure for --figure-size"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], words: str, capsys):
    assert main(["figure", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_a_folder_that_cannot_be_written_to_is_told(pairs: Path, tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["figure", "gains", str(pairs), "--out", str(tmp_path / "file" / "x")]) == 2
    assert "give a folder to write" in capsys.readouterr().err


def test_many_victims_have_a_row_of_distances_each(tmp_path: Path):
    for victim in ("hashnet", "csq", "dpsh", "dch", "dsdh", "dtsh"):
        run(tmp_path, victim=victim)
    panels = draw("distances", tmp_path).figure.axes
    assert sorted(axes.get_ylabel() for axes in panels) == [
        "CSQ", "DCH", "DPSH", "DSDH", "DTSH", "HashNet",
    ]  # fmt: skip
    assert [axes.get_title("left") for axes in panels if axes.get_title("left")] == ["CIBA"]


def test_curves_of_more_victims_than_fit_are_refused(tmp_path: Path):
    for victim in ("hashnet", "csq", "dpsh", "dch", "dsdh", "dtsh", "dpn", "orthohash"):
        for budget in (0.2, 0.6):
            run(tmp_path, victim=victim, budget=budget)
    with pytest.raises(Unfilled, match="8 victims don't fit side by side, 7 do"):
        draw("budget", tmp_path)


def test_the_colours_of_a_heatmap_span_the_tens_around_its_means():
    means = [Spread(37.0, None, 1), None, Spread(52.0, 1.0, 2)]
    assert limits_of(means) == (30, 60)
    assert limits_of([Spread(-0.1, None, 1)]) == (-10, 0)
    assert limits_of([Spread(40.0, None, 1)]) == (40, 50)  # never empty
    assert limits_of([None]) == (0, 100)
