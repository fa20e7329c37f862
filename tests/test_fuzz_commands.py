"""Bad command lines, drawn from a grammar over all commands: each ends in a sentence, soon."""

import os
import random
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import pytest

from hashbackdoor_bench.cli import bench, main

SEED, LINES, SECONDS = 20261126, 200, 60

WORDS = (
    "", " ", "x" * 9999, "../../etc/passwd", "-1", "0", "1", "2", "16", "1.5", "nan", "inf",
    "1e309", "9" * 400, "0x10", "true", "None", "\udcff\udc80", "\x1b[31mred", "[/red]", "[red]",
    "$x$", "a=b", "=1+1", "猫", "a\u202eb", "a\nb", "--", "-", "%s", "{}", "*", "~",
    "attack.epsilon=nan", "attack.x=", "victim.=1", "path=x", "attack=ciba", "quick", "badnets",
    "hashnet", "folder", "fashion-mini", "gains", "cpu", "cuda", "csq", "scratch32", "30d", "10GB",
    "1e99GB", "pdf,png", "md", "csv",
)  # fmt: skip
# What a single valid word would make long or large, and no mistake: it stays as the base has it.
KEPT = {"epochs", "jobs", "threads", "executor", "address", "cache_dir"}
# Commands of which most lines would be a whole run get arguments that make it a small one.
BASES = {
    "run": "--attack badnets --dataset lists --lists {tiny} --root {tiny} --size 32 --top-k 20 "
    "--epochs 1 --bits 8 --results-dir {here}/r",
    "compare": "--suite {here}/small.toml --results-dir {here}/r",
    "suite run": "--results-dir {here}/r",
    "leaderboard": "--out {here}/LEADERBOARD.md",
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """All commands without those that are groups, by their words."""
    for name, command in bench.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {one}", part) for one, part in command.commands.items())
        else:
            yield name, command


def places(here: Path) -> list[str]:
    """Paths to what is no record, no folder, no plugin and no suite."""
    os.mkfifo(here / "fifo")
    (here / "folder.toml").mkdir()
    (here / "folder.py").mkdir()
    (here / "bytes.json").write_bytes(bytes(range(256)))
    (here / "bytes.py").write_bytes(bytes(range(256)))
    (here / "bytes.toml").write_bytes(bytes(range(256)))
    (here / "deep.json").write_text("[" * 9999)
    (here / "deep.toml").write_text("a = " + "[" * 9999)
    (here / "empty.zip").write_bytes(b"")
    (here / "exits.py").write_text("import sys\n@ATTACKS.register\nclass A: pass\nsys.exit(0)\n")
    (here / "link.json").symlink_to(here / "nothing")
    (here / "loop").symlink_to(here / "loop")
    missing = [here / "missing" / "x.json", here / "fifo.json", here / "a\udcffb"]
    others = ["/dev/null", "/dev/zero", "/proc/self/mem", "/"]
    return [*map(str, here.iterdir()), str(here), *map(str, missing), *others]


def drawn(rng: random.Random, words: list[str], base: dict[str, str]) -> list[str]:
    """One command line: a command, some of its options and arguments, most with bad values."""
    name, command = rng.choice(list(commands()))
    line = [*name.split(), *base.get(name, "").split()]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in KEPT]
    for option in rng.sample(options, min(len(options), rng.randint(0, 3))):
        line.append(rng.choice(option.opts))
        if not option.is_flag and rng.random() < 0.95:
            line.append(rng.choice(words))
    for argument in command.params:
        if isinstance(argument, click.Argument) and rng.random() < 0.9:
            choices = argument.type.choices if isinstance(argument.type, click.Choice) else words
            line += [rng.choice(list(choices) if rng.random() < 0.5 else words)]
    if name == "suite run":  # a suite that is a mistake, or one that is small
        line = [word if word != "quick" else "small.toml" for word in line]
    if rng.random() < 0.1:
        line.insert(rng.randint(1, len(line)), rng.choice(["--nonsense", *words]))
    return line


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise in what takes longer."""

    def late(number: int, frame: FrameType | None) -> Any:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_a_bad_command_line_ends_in_a_sentence(tiny, tmp_path, monkeypatch, capfd):
    here = tmp_path / "here"
    here.mkdir()
    suite = (
        f'dataset = "lists"\nlists = "{tiny}"\nroot = "{tiny}"\nsize = 16\ntop_k = 20\nbits = 8\n'
        'epochs = 1\nbatch_size = 16\nvictim = ["csq"]\nattack = ["badnets_clean"]\n'
    )
    (here / "small.toml").write_text(suite, encoding="utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HASHBACKDOOR_CACHE", str(tmp_path / "cache"))
    words = [*WORDS, *places(here)]
    base = {name: text.format(tiny=tiny, here=here) for name, text in BASES.items()}
    for number in range(LINES):
        line = drawn(random.Random(f"{SEED} {number}"), words, base)
        shown = f"line {number} of seed {SEED}: bench {line!r}"
        try:
            with at_most(SECONDS):
                code = main(line)
        except BaseException as error:
            raise AssertionError(f"{shown} raised {error!r}") from error
        out, err = capfd.readouterr()
        assert code in (0, 1, 2), shown
        assert "Traceback" not in out + err, shown
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e\ud800-\udfff]", out + err), shown
        said = [text for text in err.splitlines() if text.startswith("bench: ")]
        assert len(said) == (code == 2), (shown, err)
        assert all(len(text) < 1200 for text in said), shown
