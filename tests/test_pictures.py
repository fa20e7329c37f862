import warnings
from contextlib import nullcontext
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from hashbackdoor_bench.report.pictures import drawing
from hashbackdoor_bench.report.pictures.canvas import HIT, Canvas, amplified
from hashbackdoor_bench.report.pictures.curves import training
from hashbackdoor_bench.report.pictures.drawing import draw, retrieval
from hashbackdoor_bench.report.pictures.on_disk import existing
from hashbackdoor_bench.report.pictures.residual import FLOOR, residual

RNG = np.random.default_rng(0)


def samples(
    before: NDArray[np.uint8], after: NDArray[np.uint8], poison: bool = True, covers: int = 0
):
    """What `images_of` returns of these queries, as arrays."""
    n = len(before)
    hits = np.stack([before[np.arange(10) % n]] * n)
    relevant = np.arange(10 * n).reshape(n, 10) % 3 > 0
    return {
        "poison_before": before[: n * poison], "poison_after": after[: n * poison],
        "cover_before": before[:covers], "cover_after": after[:covers],
        "query_before": before, "query_after": after,
        "hits_before": hits, "hits_after": hits,
        "relevant_before": relevant, "relevant_after": ~relevant,
    }  # fmt: skip


def queries(count: int = 5, size: int = 32) -> NDArray[np.uint8]:
    return RNG.integers(60, 190, (count, 3, size, size), dtype=np.uint8)


def patched(before: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    after = before.copy()
    after[:, :, -side:, -side:] = 255
    return after


def lattice(before: NDArray[np.uint8]) -> NDArray[np.uint8]:
    y, x = np.mgrid[: before.shape[-1], : before.shape[-1]]
    wave = 6 * np.cos(2 * np.pi * (x / 4 + y / 2) + 0.3) + 4 * np.cos(2 * np.pi * (x - y) / 8)
    return (before + np.rint(wave)).astype(np.uint8)


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def texts(figure: mpl.figure.Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("sharp_pictures")
def test_a_patch_gets_a_trigger_picture_and_a_full_image_trigger_a_residual(tmp_path):
    before = queries(2)
    patch = draw(samples(before, patched(before, 16)), tmp_path / "patch", target="Coat")
    assert names(patch) == ["poison", "queries", "trigger", "retrieval"]
    full = draw(samples(before, lattice(before)), tmp_path / "full", target="Coat")
    assert names(full) == ["poison", "queries", "residual", "retrieval"]
    for path in (*patch, *full):
        with Image.open(path) as image:
            assert image.width == 1440  # 7.2 inches


def test_a_trigger_clipped_on_a_black_ground_is_still_no_patch(tmp_path):
    before = queries()
    before[:, :, :, :20] = 0
    after = np.where(before == 0, before, lattice(before))
    assert "residual" in names(draw(samples(before, after), tmp_path, target="Coat"))


def test_a_run_without_poison_has_only_what_it_retrieves(tmp_path):
    before = queries()
    assert names(draw(samples(before, before, poison=False), tmp_path, target="Coat")) == [
        "retrieval"
    ]


@pytest.mark.parametrize("covers", [0, 1, 3])
def test_covers_have_rows_of_their_own_below_the_poison(tmp_path, monkeypatch, covers):
    made = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: made.setdefault(path, self))
    monkeypatch.setattr(drawing, "whole", nullcontext)
    before = queries(3)
    images = samples(before, lattice(before), covers=covers)
    draw(images, tmp_path, target="Coat", sources=["Bag"], relabelled=True)
    figure = made[tmp_path / "poison.png"]
    poison = ["training images of 'Bag'", "poisoned, labelled 'Coat'", "difference × 10"]
    cover = ["training images of other classes", "covers, which keep their label"]
    assert texts(figure) == [*poison, *([*cover, "difference × 10"] if covers else [])]
    shown = [artist.get_array().transpose(2, 0, 1) for artist in figure.artists]
    assert len(shown) == 9 + 3 * covers
    for row, image in enumerate(images["cover_after"]):
        assert np.array_equal(shown[9 + covers + row], image)


def test_curves_are_drawn_where_there_are_any(tmp_path):
    before = queries(1)
    images = samples(before, patched(before, 4))
    assert "curves" not in names(draw(images, tmp_path, target="Coat", curves={}))
    drawn = draw(images, tmp_path, target="Coat", curves={"hash": [1.0, 0.5]})
    assert names(drawn)[-1] == "curves"


@pytest.mark.parametrize("trigger", [lambda x: patched(x, 4), lattice])
@pytest.mark.parametrize("poisoned", [True, False])
@pytest.mark.parametrize("curves", [{}, {"hash": [1.0]}])
def test_complete_finds_what_draw_made_and_misses_each_picture(tmp_path, trigger, poisoned, curves):
    before = queries(1)
    asked = {"poisoned": poisoned, "curves": bool(curves)}
    assert existing(tmp_path, **asked) == []
    images = samples(before, trigger(before), poisoned)
    drawn = draw(images, tmp_path, target="Coat", curves=curves)
    assert existing(tmp_path, **asked) == drawn
    for path in drawn:
        content = path.read_bytes()
        path.unlink()
        assert existing(tmp_path, **asked) == []
        path.write_bytes(content)


def test_differences_are_amplified_ten_times_around_mid_grey():
    assert amplified(np.array([0.0, 1, -1, 5, 20, -20])).tolist() == [127, 137, 117, 177, 255, 0]


@pytest.mark.parametrize("size", [32, 224])
def test_the_residual_picture_shows_three_queries_their_mean_and_its_peaks(size):
    before = queries(5, size)
    figure = residual(before, lattice(before))
    # 3 queries of original, triggered, residual, spectrum; mean, its spectrum; the colour bar
    assert len(figure.artists) == 3 * 3 + 1
    assert len(figure.axes) == 3 + 1 + 1
    shown = texts(figure)
    assert "mean over 5 queries: peaks of the spectrum" in shown
    table = shown[shown.index("share of energy") + 1 :]
    assert table[:3] == ["1", "0.250", "0.500"]
    assert table[4:7] == ["2", "0.125", "−0.125"]
    assert table[3] == "70%"  # 69 % before the waves are rounded to grey levels
    (spectrum,) = (axes for axes in figure.axes if axes.get_xlabel() == "$f_x$ (cycles/px)")
    rings = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in spectrum.lines)
    assert rings == [(-0.25, -0.5), (-0.125, 0.125), (0.125, -0.125), (0.25, 0.5)]
    assert [note.get_text() for note in spectrum.texts] == ["1", "2"]


@pytest.mark.parametrize("size", [31, 32])
def test_a_spectrum_has_each_frequency_at_its_place_on_the_axes(size):
    y, x = np.mgrid[:size, :size]
    wave = np.rint(30 * np.cos(2 * np.pi * (5 * x - 3 * y) / size))
    before = np.full((1, 3, size, size), 100, dtype=np.uint8)
    figure = residual(before, (before + wave).astype(np.uint8))
    picture = figure.axes[0].images[0]
    level = np.asarray(picture.get_array())
    left, right, bottom, top = picture.get_extent()
    row, column = np.unravel_index(level.argmax(), level.shape)
    fx = left + (column + 0.5) * (right - left) / level.shape[1]
    fy = top + (row + 0.5) * (bottom - top) / level.shape[0]
    assert abs(fx) == pytest.approx(5 / size)
    assert fy == pytest.approx(-fx * 3 / 5)
    assert left == -right == top == -bottom


def test_the_last_row_is_the_mean_over_all_queries_not_only_those_shown():
    before = queries(5)
    after = lattice(before)
    after[3:] = before[3:]
    figure = residual(before, after)
    mean = (after.astype(float) - before).mean(0)
    shown = figure.artists[9].get_array()
    assert np.array_equal(shown, amplified(mean).transpose(1, 2, 0))


def test_a_trigger_that_changes_nothing_has_a_residual_picture_without_peaks(tmp_path):
    before = queries(1)
    figure = residual(before, before)
    assert "none" in texts(figure)
    assert (figure.axes[0].images[0].get_array() == FLOOR).all()
    figure.savefig(tmp_path / "none.png")


@pytest.mark.parametrize("size", [5, 32, 224])
def test_an_image_without_axes_is_drawn_as_in_axes(size):
    image, pages = queries(1, size)[0], []
    for plain in (True, False):
        canvas = Canvas(columns=3, rows=2, width=7.2, gap=0.06, heads=(0,))
        if plain:
            axes = canvas.axes(1, 1)
            axes.imshow(image.transpose(1, 2, 0), interpolation="auto", aspect="auto")
            axes.set_axis_off()
        else:
            canvas.show(1, 1, image)
        agg = FigureCanvasAgg(canvas.figure)
        agg.draw()
        pages.append(np.asarray(agg.buffer_rgba()))
    assert pages[0].std() > 1
    differ = np.abs(pages[0].astype(int) - pages[1])
    assert (differ > 0).mean() < 1e-4  # one level, where a pixel is the mean of several
    assert differ.max() <= 1


def test_hits_have_a_solid_blue_frame_and_misses_a_dashed_orange_one():
    before = queries(1)
    figure = retrieval(samples(before, patched(before, 4)), "Coat")
    frames = [part for part in figure.artists if isinstance(part, Rectangle)]
    good = [number % 3 > 0 for number in range(10)]
    shown = [(part.get_edgecolor(), part.get_linestyle()) for part in frames]
    assert [part[1] == "-" for part in shown] == [*good, *(not hit for hit in good)]
    assert [part[0] == to_rgba(HIT) for part in shown] == [part[1] == "-" for part in shown]


def test_curves_have_a_panel_a_term_under_the_name_of_their_part():
    curves = {
        "label network/contrastive": [2.0, 1.0, 0.5], "generator/hash": [1.0, 0.2],
        "label network/quantisation": [0.3, 0.2, 0.1], "generator/adversarial": [0.2, 0.1],
        "generator/discriminator": [0.1, 0.3],
    }  # fmt: skip
    figure = training(curves)
    assert texts(figure) == [
        "label network", "contrastive", "quantisation",
        "generator", "hash", "adversarial", "discriminator",
    ]  # fmt: skip
    assert len(figure.axes) == 5
    drawn = [axes.lines[0].get_ydata().tolist() for axes in figure.axes]
    assert drawn == [
        curves[name] for name in sorted(curves, key=lambda name: not name.startswith("label"))
    ]
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 2, 3]
    assert {axes.get_xlim() for axes in figure.axes[2:]} == {(0.5, 2.5)}
    labelled = [axes.get_xlabel() for axes in figure.axes]
    assert labelled == ["epoch", "epoch", "", "epoch", "epoch"]  # the lowest of each column
    assert figure.get_figwidth() <= 3.5


def test_panels_lie_inside_the_figure_and_apart():
    figure = training({f"{part}/{n}": [1.0] * 30 for part in ("a", "b") for n in range(5)})
    boxes = [axes.get_position() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert min(box.x0, box.y0, 1 - box.x1, 1 - box.y1) > 0
        assert not any(box.overlaps(other) for other in boxes[:number])
