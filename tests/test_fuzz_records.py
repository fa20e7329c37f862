"""Records that were changed at random: each is named and left out, or says what it said before."""

import json
import math
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hashbackdoor_bench import UserError
from hashbackdoor_bench.records import CONVENTION_FIELDS, CONVENTIONS, read_record, with_checksum
from hashbackdoor_bench.report import collect
from hashbackdoor_bench.report.board import boards
from hashbackdoor_bench.report.figures import FIGURES, figures
from hashbackdoor_bench.report.tables import WRITERS, leaderboard_text, tables
from hashbackdoor_bench.trust import verify

QUICK = Path(__file__).parents[1] / "results" / "quick"
MUTANTS = 500
SCORES = [f"{one}.{name}" for one in CONVENTIONS for name in CONVENTION_FIELDS]
# what a table shows; of a control that is the smaller one, nothing else follows
SHOWN = [f"field.{name}" for name in ("map", "t_map", "delta_map", "backdoor_gain")]

DEEP = "[" * 5000 + "]" * 5000
HOLE = "a hole in the text"  # a value that is replaced by text that json.dumps doesn't write
TEXTS = (DEEP, DEEP.replace("[", '{"a":').replace("]", "}").replace(":}", ":1}"), "9" * 400,
         "9" * 5000, "-" + "9" * 30, "1e400", "NaN", "-Infinity", r'"\ud800"', r'"\udc00\ud800"',
         '"\\u0000"', '"' + "x" * 100_000 + '"', "01", "1.", "tru", "")  # fmt: skip
VALUES = (None, True, False, 0, -1, 1, 2**53, 2**63, 0.5, -0.5, 1e308, 5e-324, -0.0, "", "x", [],
          [None], [[]], {}, {"a": 1}, "\x1b[2J", "[/b]", "$\\frac", "../../etc/passwd")  # fmt: skip


def get(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def somewhere(draw: random.Random, values: Any, *, named: bool = False) -> tuple[Any, ...]:
    """The path of a value, drawn from the top down, so that long lists are not drawn most often.

    Args:
        draw: decides.
        values: a JSON object.
        named: whether the value must stand in an object.
    """
    path: tuple[Any, ...] = ()
    while True:
        inner = get(values, path)
        keys = list(inner) if isinstance(inner, dict) else []
        if isinstance(inner, list) and not named:
            keys = list(range(len(inner)))
        if not keys or (path and draw.random() < 0.2):
            return path
        path = (*path, draw.choice(keys))


def parent(values: Any, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        values = values[step]
    return values


def with_other_value(draw: random.Random, values: dict[str, Any]) -> str:
    path = somewhere(draw, values)
    parent(values, path)[path[-1]] = draw.choice(VALUES)
    return json.dumps(values)


def with_other_text(draw: random.Random, values: dict[str, Any]) -> str:
    path = somewhere(draw, values)
    parent(values, path)[path[-1]] = HOLE
    return json.dumps(values).replace(f'"{HOLE}"', draw.choice(TEXTS))


def with_other_number(draw: random.Random, values: dict[str, Any]) -> str:
    """One number of the scores, a little or much changed."""
    path: tuple[Any, ...] = ()
    while not isinstance(old := get(values["scores"], path), float):
        path = somewhere(draw, values["scores"])
    new = draw.choice((old + 1e-6, old * 1.01, old / 2, 1 - old, 0.0, 1.0, 0.99, -old, 2.0))
    parent(values["scores"], path)[path[-1]] = new
    return json.dumps(values)


def without_a_name(draw: random.Random, values: dict[str, Any]) -> str:
    path = somewhere(draw, values, named=True)
    entry = parent(values, path).pop(path[-1])
    if draw.random() < 0.5:
        parent(values, path)[draw.choice((path[-1] + " ", "\x1b[1m", "", "schema"))] = entry
    return json.dumps(values)


def with_a_name_twice(draw: random.Random, values: dict[str, Any]) -> str:
    path = somewhere(draw, values, named=True)
    parent(values, path)[HOLE] = draw.choice((*VALUES[:12], get(values, path)))
    return json.dumps(values).replace(json.dumps(HOLE), json.dumps(path[-1]))


def with_other_bytes(draw: random.Random, values: dict[str, Any]) -> bytes:
    data = bytearray(json.dumps(values, indent=1).encode())
    for _ in range(draw.choice((1, 1, 1, 3, 20))):
        at = draw.randrange(len(data))
        end = at + draw.choice((1, 1, 1, 10, 1000))
        data[at:end] = draw.choice(
            (b"", bytes([draw.randrange(256)]), bytes(data[at:end]) * 2, b"0", b'"', b"{", b"\xff")
        )
    return bytes(data)


KINDS: tuple[Callable[[random.Random, dict[str, Any]], str | bytes], ...] = (
    with_other_value, with_other_text, with_other_number, without_a_name, with_a_name_twice,
    with_other_bytes,
)  # fmt: skip


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few records of a suite with its index, some of them with a checksum."""
    folder = tmp_path_factory.mktemp("results") / "quick"
    lines = (QUICK / "index.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines[1:] if re.search(r"/hashnet-48/(tri|ciba|badnets)-s0-", line)]
    folder.mkdir()
    (folder / "index.csv").write_text("".join([lines[0], *kept]))
    for number, line in enumerate(kept):
        place = Path(line.strip().rpartition(",")[2])
        (folder / place.parent).mkdir(parents=True, exist_ok=True)
        record = read_record(QUICK / place)
        if number % 2:
            with_checksum(record).write(folder / place)
        else:
            shutil.copy(QUICK / place, folder / place)
    return folder


def looked_at(folder: Path, draw: random.Random, path: Path) -> Any:
    """What is read of a folder, after every command that reads records has made something of it."""
    found = collect([folder])
    frame = found.frame
    figure = draw.random() < (0.1 if path.as_posix() in set(frame["path"]) else 0.01)
    try:
        for table in tables(frame, "pairs", "field"):
            WRITERS[draw.choice(list(WRITERS))]([table])
        leaderboard_text(boards(frame, ["quick"]))
        if figure:
            figures(draw.choice(list(FIGURES)), frame, "field")
    except UserError:
        pass  # records that may not stand in one table are refused
    assert verify(folder, None).problems[: len(found.left_out)] == found.left_out
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_a_record_changed_at_random_is_left_out_or_says_the_same(quick: Path, part: int):
    before = collect([quick]).frame.set_index("path")
    paths = sorted(quick.rglob("*.json"))
    for number in range(part, MUTANTS, 5):
        seed = f"records/{number}"
        draw = random.Random(seed)
        path = draw.choice(paths)
        original = path.read_bytes()
        kind = KINDS[number % len(KINDS)]
        print(seed, kind.__name__, path.name)  # shown if the test fails
        text = kind(draw, json.loads(original))
        try:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            found = looked_at(quick, draw, path)
        finally:
            path.write_bytes(original)
        frame = found.frame.set_index("path")
        others = [name for name in before.index if name != path.as_posix()]
        assert set(others) <= set(frame.index)
        assert frame.loc[others, SCORES].equals(before.loc[others, SCORES])
        if path.as_posix() not in frame.index:
            assert any(path.name in sentence for sentence in found.left_out)
            assert all(len(one) < 3000 and one.isprintable() for one in found.left_out)
            continue
        sealed = json.loads(original).get("checksum") is not None
        for column in SCORES if sealed else SHOWN:
            one, other = frame.at[path.as_posix(), column], before.at[path.as_posix(), column]
            assert one == other or (math.isnan(one) and math.isnan(other)), column
