"""The suite from Python: runs, their figures, and records as a table."""

from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL.Image import Image
from rich.table import Table

import hashbackdoor_bench as hb
from hashbackdoor_bench.cli import bench
from hashbackdoor_bench.cli.run import spec_of
from hashbackdoor_bench.cli.terminal import as_html, as_text
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.spec import RunSpec

TINY = {
    "dataset": "lists", "size": 16, "top_k": 20, "bits": 12, "epochs": 1, "batch_size": 16,
    "attack": "badnets", "victim": "csq", "backbone": "cnn32", "recipe": "scratch32",
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> hb.Finished:
    folder = tmp_path_factory.mktemp("interactive")
    return hb.run(
        **TINY, lists=tiny, root=tiny, victim_settings={"quantisation": 0.5}, threads=1,
        cache_dir=folder / "cache", results_dir=folder / "runs", quiet=True,
    )  # fmt: skip


def test_a_run_from_python_is_that_of_the_command_line(done: hb.Finished, tiny: Path):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    places = {"lists": tiny, "root": tiny, "cache-dir": done.path.parents[3] / "cache",
              "results-dir": done.path.parents[2]}  # fmt: skip
    words += [f"--{name}={value}" for name, value in places.items()]
    words += ["--threads=1", "--set=victim.quantisation=0.5", "--quiet"]
    told = CliRunner().invoke(bench, ["run", *words], catch_exceptions=False)
    assert str(done.path) in told.output.replace("\n", "")
    assert len(list(done.path.parents[2].rglob("*.json"))) == 1
    assert read_record(done.path) == done.record
    assert dict(done.record.spec.victim_settings)["quantisation"] == 0.5


def test_a_run_shows_itself_as_text_and_in_a_notebook(done: hb.Finished):
    gain = f"{100 * done.record.scores.field.backdoor_gain:.1f}"
    assert "backdoor gain" in str(done)
    assert gain in str(done)
    assert str(done.path) in str(done) == repr(done)
    page = done._repr_html_()
    assert page.startswith("<pre>")
    assert "backdoor gain" in page
    assert gain in page
    assert "<script" not in page


def test_figures_are_pictures_of_the_run_or_figures_of_its_record(done: hb.Finished):
    picture = done.figure("retrieval")
    assert isinstance(picture, Image)
    assert min(picture.size) > 50
    drawn = done.figure("distances")
    assert isinstance(drawn, Figure)
    assert drawn._repr_png_().startswith(b"\x89PNG")  # which a notebook looks for
    with pytest.raises(hb.UserError, match=r"figure 'retrievel'.*retrieval"):
        done.figure("retrievel")


def test_records_are_a_table_and_what_is_left_out_is_warned_of(done: hb.Finished):
    folder = done.path.parents[2]
    frame = hb.read_records(folder)
    assert isinstance(frame, pd.DataFrame)
    assert frame["field.backdoor_gain"].tolist() == [done.record.scores.field.backdoor_gain]
    broken = done.path.with_stem("broken")
    broken.write_text("{}")
    with pytest.warns(UserWarning, match="broken"):
        assert len(hb.read_records(str(folder))) == 1
    broken.unlink()


def test_values_of_numpy_and_whole_numbers_are_those_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
):
    class Stop(Exception):
        """Raised where a run would begin, with what was asked for."""

    def asked(spec: RunSpec, **_: object) -> None:
        raise Stop(spec)

    monkeypatch.setattr("hashbackdoor_bench.cli.interactive.run_spec", asked)
    with pytest.raises(Stop) as stopped:
        hb.run(bits=np.int64(32), budget=1, target=3, root="images", quiet=True)
    words = ["--bits", "32", "--budget", "1", "--target", "3", "--root", "images"]
    context = bench.commands["run"].make_context("run", words)
    taken = {name: context.params[name] for name in map(attrgetter("name"), fields(RunSpec))
             if name in context.params}  # fmt: skip
    (spec,) = stopped.value.args
    assert spec.to_dict() == spec_of([], taken).to_dict()
    assert spec.key == spec_of([], taken).key
    assert Path(spec.root).is_absolute()


def test_a_picture_that_is_shown_needs_its_file_no_more(done: hb.Finished, tmp_path: Path):
    copy = tmp_path / "retrieval.png"
    copy.write_bytes(next(p for p in done.pictures if p.stem == "retrieval").read_bytes())
    picture = replace(done, pictures=(copy,)).figure("retrieval")
    copy.write_bytes(b"")
    assert isinstance(picture, Image)
    assert picture.getbbox() is not None


def test_a_table_for_python_shows_marks_and_tags_as_they_are_written():
    table = Table()
    table.add_column("[red]name[/red]")
    table.add_row("<script>x</script> :smile:")
    assert "[red]name[/red]" in as_text(table)
    assert ":smile:" in as_text(table)
    page = as_html(table)
    assert "[red]name[/red]" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"atack": "ciba"}, "option 'atack'.*attack"),
        ({"attack": "cibaa"}, "attack 'cibaa'.*ciba"),
        ({"aware": "jpg"}, "defense 'jpg'.*jpeg"),
        ({"recipe": "scratch23"}, "recipe 'scratch23'.*scratch32"),
        ({"budget": 3.0}, "budget"),
        ({"attack_settings": {"sise": 3}}, "sise"),
        ({"attack_settings": 3}, "attack_settings is 3: give a dict"),
        ({"bits": "x"}, "bits is 'x': it must be a whole number"),
        ({"bits": 48.5}, "bits is 48.5: it must be a whole number"),
        ({"bits": None}, "bits is None"),
        ({"seed": True}, "seed is True"),
        ({"attack": Path("ciba")}, r"attack is .*Path\('ciba'\): it must be a word"),
        ({"attack": None}, "attack is None"),
        ({"root": 3}, "root is 3"),
        ({"aware": "nonsense"}, "defense 'nonsense'"),
        ({"target": ""}, "--target is empty"),
    ],
)
def test_a_mistake_is_one_sentence(given: dict, match: str, tmp_path: Path):
    with pytest.raises(hb.UserError, match=match) as raised:
        hb.run(**given, cache_dir=tmp_path, results_dir=tmp_path, quiet=True)
    assert "\n" not in str(raised.value)
