"""A plugin that fails is named with file and line, in one sentence and without a traceback."""

import json
from pathlib import Path

import pytest
import torch
import warm
from test_pipeline import spec

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.plugin_faults import OUTSIDE
from hashbackdoor_bench.stages import Cache, LoadedSets
from hashbackdoor_bench.templates import write_skeleton


@pytest.fixture(autouse=True)
def no_plugin_of_another_test() -> None:
    OUTSIDE.clear()


def plugin_with(folder: Path, first: str, craft: str) -> tuple[Path, int]:
    """A working plugin with a line at its start and one in ``craft``; and that line's number."""
    path, _ = write_skeleton("attack", "mine", folder)
    text = path.read_text(encoding="utf-8").replace("import torch\n", f"import torch\n{first}\n", 1)
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip().startswith("def craft("))
    body = next(n for n in range(start, len(lines)) if lines[n].rstrip().endswith(":")) + 1
    lines.insert(body, f"        {craft}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, body + 1


def words_of(tiny: Path, folder: Path, plugin: Path, *more: str) -> list[str]:
    small = ["--dataset", "lists", "--lists", str(tiny), "--root", str(tiny), "--size", "16"]
    small += ["--top-k", "20", "--epochs", "1", "--bits", "8", "--batch-size", "16"]
    places = ["--cache-dir", str(folder / "cache"), "--results-dir", str(folder / "results")]
    words = ["run", "--attack", "mine", "--plugin", str(plugin), "--victim", "csq"]
    return [*words, *small, *places, *more]


def run(tiny: Path, folder: Path, plugin: Path, *more: str) -> int:
    return main(words_of(tiny, folder, plugin, *more))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("raise ValueError('a\\x1b[31mb')", "ValueError: a\\x1b[31mb"),
        ("import sys; sys.exit(0)", "it ends the process with code 0"),
        ("raise SystemExit", "it ends the process with code None"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise BaseException('b')", "BaseException: b"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1})", "Mute"),
        ("__import__('os').chdir('/')", "the working directory was changed"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("torch.zeros(2) @ torch.zeros(3)", "RuntimeError: "),
        ("return None", "AttributeError: "),
        ("return 5", "AttributeError: "),
        ("torch.set_default_dtype(torch.float64)", "torch's default dtype was changed"),
        ("torch.set_num_threads(3)", "torch's number of threads was changed"),
        ("torch.set_grad_enabled(False)", "torch's grad mode was changed"),
        ("view.images.zero_()", "the attack wrote to a tensor of its view"),
        ("view.labels[0] = 1", "the attack wrote to a tensor of its view"),
        ("view.target.fill_(1)", "the attack wrote to a tensor of its view"),
    ],
)
def test_a_craft_that_fails_is_the_plugin_s_fault(tiny, tmp_path, capsys, line, said):
    plugin, number = plugin_with(tmp_path, "", line)
    assert run(tiny, tmp_path, plugin, "-q") == 2
    _, err = capsys.readouterr()
    (told,) = err.splitlines()
    assert said in told
    assert str(plugin) in told
    returned = not line.startswith(("raise", "import", "1", "torch.zeros"))  # fails afterwards
    assert ("with the plugin" in told) == returned
    assert returned or f"line {number}: " in told
    assert "\x1b" not in err
    ends = ("SystemExit", "sys.exit", "GeneratorExit", "BaseException")  # not caught by the stage
    assert "craft backdoor" in told or any(word in line for word in ends)


def test_the_traceback_is_printed_on_demand(tiny, tmp_path, capsys, monkeypatch):
    plugin, _ = plugin_with(tmp_path, "", "1 / 0")
    monkeypatch.setenv("HASHBACKDOOR_DEBUG", "1")
    assert run(tiny, tmp_path, plugin, "-q") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("import sys; sys.exit(3)", "it ends the process with code 3"),
        ("import nothing_there", "No module named 'nothing_there'"),
    ],
)
def test_a_file_that_can_not_be_imported_is_named_with_its_line(tiny, tmp_path, capsys, line, said):
    plugin, _ = plugin_with(tmp_path, line, "pass")
    number = plugin.read_text(encoding="utf-8").splitlines().index(line) + 1
    assert run(tiny, tmp_path, plugin) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert f"--plugin {plugin}: it fails: " in told
    assert said in told
    assert told.endswith(f"in line {number}.")


def test_what_a_plugin_prints_is_not_among_the_json_lines(tiny, tmp_path):
    loud = "import os; print('from python'); os.system('echo from a shell')"
    plugin, _ = plugin_with(tmp_path, loud, "print('crafting')")
    words = words_of(tiny, tmp_path, plugin, "--json")
    done = warm.run(tmp_path, "-m", "hashbackdoor_bench", *words)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()][-1] == "result"
    for words in ("from python", "from a shell", "crafting"):
        assert words in done.stderr


def test_what_a_plugin_changes_at_its_import_trains_no_network(tiny, tmp_path, capsys):
    plugin, _ = plugin_with(tmp_path, "torch.set_default_dtype(torch.float64)", "pass")
    try:
        assert run(tiny, tmp_path, plugin, "-q") == 2
    finally:
        torch.set_default_dtype(torch.float32)
    assert "torch's default dtype was changed" in capsys.readouterr().err
    assert not list((tmp_path / "cache").glob("train/*/facts.json"))


def test_images_that_a_method_wrote_to_are_loaded_again_for_the_next_run(tiny, tmp_path):
    sets = LoadedSets(Cache(tmp_path))
    first = sets(spec(tiny))
    assert sets(spec(tiny)) is first
    before = first.splits.train.images.clone()
    first.splits.train.images[0].zero_()
    assert torch.equal(sets(spec(tiny)).splits.train.images, before)


def test_a_trigger_that_is_no_number_is_refused(tiny, tmp_path, capsys):
    nan = "white = torch.full((3, 4, 4), float('nan')); " + (
        "return Patch(view.index, view.images[view.index], view.labels[view.index], patch=white)"
    )
    plugin, _ = plugin_with(tmp_path, "from hashbackdoor_bench import Patch", nan)
    assert run(tiny, tmp_path, plugin, "-q") == 2
    assert "NaN or infinite" in capsys.readouterr().err
