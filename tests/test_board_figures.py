"""The leaderboard's boards as figures: what is drawn is what the boards say."""

from pathlib import Path

import pytest
from test_leaderboard import runs, suite

from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.figures.catalog import OF_BOARDS, figures
from hashbackdoor_bench.report.figures.finished import Unfilled
from hashbackdoor_bench.report.figures.groups import pale


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three attacks on two targets at two budgets, of which the two highest tie; and a control."""
    gains = {"A": ("a", 0.6), "B": ("b", 0.598), "C": ("c", 0.1)}
    rows = {
        label: [
            one
            for share in (0.1, 0.6)
            for number, target in enumerate(("Bag", "Coat", "Shirt"))
            for one in runs(
                name,
                gain + share / 10 + 0.004 * number * (-1) ** ord(label),
                budget=share,
                target=target,
                seeds=(0, 2),  # fewer than targets, so that the intervals are over these
            )
        ]
        for label, (name, gain) in gains.items()
    }
    rows["Stamped"] = runs("e", 0.5, delivery="stamped")
    rows["Control"] = runs("clean", 0.0, threat={"trigger": "none"})
    return suite(tmp_path, rows)


def test_places_shows_means_intervals_places_and_what_is_not_told_apart(folder):
    (found,) = figures("places", collect([folder]).frame)
    files, stamped = found.figure.axes
    assert "delivery files" in files.get_title(loc="left")
    assert [text.get_text() for text in files.get_yticklabels()] == ["B", "A", "C"]
    assert [text.get_text() for text in files.texts] == ["1-2", "1-2", "3"]
    (bracket,) = [line for line in files.lines if not line.get_clip_on()]
    assert list(bracket.get_ydata()) == [-0.3, 1.3]
    assert [text.get_text() for text in stamped.get_yticklabels()] == ["Stamped"]
    means = [line.get_xdata()[0] for line in files.lines if line.get_marker() == "o"]
    assert means == pytest.approx([63.7, 63.1, 13.1], abs=0.1)
    assert stamped.get_xlabel() == "backdoor gain (percentage points)"


def test_places_says_why_an_attack_has_none(tmp_path):
    rows = {"A": runs("a", 0.5), "Harmful": runs("b", 0.6, map=0.75, map_clean_victim=0.8)}
    (found,) = figures("places", collect([suite(tmp_path, rows)]).frame)
    (axes,) = found.figure.axes
    assert [text.get_text() for text in axes.texts] == ["1", "–"]
    marks = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert marks.index("white") == 1
    caption = " ".join(found.caption)
    assert "Without a place: Harmful (delta MAP -5.00: a fall of more than 2.00)." in caption
    assert "A (" not in caption


def test_targets_shows_every_targets_gain_with_one_legend(folder):
    (found,) = figures("targets", collect([folder]).frame)
    files, stamped = found.figure.axes
    marks = {line.get_label(): line.get_xdata() for line in files.lines if line.get_marker() != ""}
    assert marks["Bag"][0] == pytest.approx(63.3, abs=0.01)
    legend = files.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["Bag", "Coat", "Shirt"]
    assert stamped.get_legend() is not None  # which has other targets


def test_area_shows_the_mean_at_every_budget_of_boards_that_have_some(folder):
    (found,) = figures("area", collect([folder]).frame)
    (axes,) = found.figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["10", "60"]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "^"]
    (low,) = [line for line in lines if max(line.get_ydata()) < 30]
    assert low.get_ydata() == pytest.approx([10.6, 15.6], abs=0.1)
    assert len(axes.collections) == 3
    assert "(log scale)" in axes.get_xlabel()
    assert found.figure.get_supylabel() == "backdoor gain (percentage points)"
    assert {line.get_markerfacecolor() for line in lines} == {line.get_color() for line in lines}
    caption = " ".join(found.caption)
    assert "Hollow" not in caption
    assert "No interval is drawn" not in caption


def test_area_draws_an_attack_that_lacks_runs_pale_and_hollow_and_without_an_interval(tmp_path):
    targets = ("Bag", "Coat", "Shirt")
    rows = {
        label: [one for share in (0.1, 0.6) for target in had
                for one in runs(attack, 0.5, budget=share, target=target, seeds=(0, 2))]
        for label, attack, had in (("All", "a", targets), ("Few", "b", targets[:2]))
    }  # fmt: skip
    (found,) = figures("area", collect([suite(tmp_path, rows)]).frame)
    (axes,) = found.figure.axes
    full, hollow = (line for line in axes.lines if line.get_marker() in ("o", "s"))
    if hollow.get_markerfacecolor() != "white":
        full, hollow = hollow, full
    assert full.get_markerfacecolor() == full.get_color() == full.get_markeredgecolor()
    assert hollow.get_markerfacecolor() == "white"
    assert hollow.get_color() == pale(hollow.get_markeredgecolor())
    corners = [
        some.get_paths()[0].vertices if some.get_paths() else [] for some in axes.collections
    ]
    assert sorted(len(points) > 0 for points in corners) == [False, True]
    caption = " ".join(found.caption)
    assert "Hollow marks on a pale line: an attack without a place" in caption
    assert "Without a place: Few (8 of 24 runs missing)." in caption
    assert "No interval is drawn where it would follow from fewer than 3 targets" in caption


def test_records_that_hold_no_board_or_no_budgets_say_what_is_missing(tmp_path):
    frame = collect([suite(tmp_path, {"A": runs("a", 0.5)})]).frame
    for name in ("area", "targets"):
        with pytest.raises(Unfilled, match="bench suite run standard"):
            figures(name, frame)
    for name in OF_BOARDS:
        with pytest.raises(Unfilled, match="of no suite"):
            figures(name, frame.assign(suite=None))
        with pytest.raises(Unfilled, match="convention field only"):
            figures(name, frame, "ciba")
