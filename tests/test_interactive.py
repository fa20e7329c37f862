"""The suite from Python: runs, their figures, and records as a table."""

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL.Image import Image

import hashbackdoor_bench as hb
from hashbackdoor_bench.cli import bench
from hashbackdoor_bench.records import read_record

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
    assert str(done.path) in str(done)
    page = done._repr_html_()
    assert page.startswith("<pre>")
    assert "backdoor gain" in page
    assert gain in page
    assert "<script" not in page


def test_figures_are_pictures_of_the_run_or_figures_of_its_record(done: hb.Finished):
    picture = done.figure("retrieval")
    assert isinstance(picture, Image)
    assert min(picture.size) > 50
    assert isinstance(done.figure("distances"), Figure)
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


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"atack": "ciba"}, "option 'atack'.*attack"),
        ({"attack": "cibaa"}, "attack 'cibaa'.*ciba"),
        ({"aware": "jpg"}, "defense 'jpg'.*jpeg"),
        ({"recipe": "scratch23"}, "recipe 'scratch23'.*scratch32"),
        ({"budget": 3.0}, "budget"),
        ({"attack_settings": {"sise": 3}}, "sise"),
    ],
)
def test_a_mistake_is_one_sentence(given: dict, match: str, tmp_path: Path):
    with pytest.raises(hb.UserError, match=match) as raised:
        hb.run(**given, cache_dir=tmp_path, results_dir=tmp_path, quiet=True)
    assert "\n" not in str(raised.value)
