"""The README: short, with output that is true and links that lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from doc_pages import ROOT, command_lines
from test_docs import refused

from hashbackdoor_bench.cli.result import result_table
from hashbackdoor_bench.cli.terminal import as_text
from hashbackdoor_bench.records import read_record

README = (ROOT / "README.md").read_text("utf-8")
ATTACKED = "results/fashion-mini/hashnet-48/ciba-s0-827e7c929f.json"
DEFENDED = "results/defenses/fashion-mini/hashnet-48/badnets_clean-s0-42919d7153.json"
INDENT = "    "


def shown(record: str) -> list[str]:
    """The lines of the table of a record, as the README indents them."""
    lines = as_text(result_table(read_record(ROOT / record))).splitlines()
    return [f"{INDENT}{line}".rstrip() for line in lines]


def cells(text: str) -> list[list[str]]:
    """The rows of the first Markdown table in a text, without its rule."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    return [rows[0], *rows[2:]]


def test_the_readme_fits_on_a_screen_and_a_half():
    assert len(README.splitlines()) <= 115


def test_the_output_of_its_main_job_is_that_of_the_published_record():
    assert "\n".join(shown(ATTACKED)) in README
    assert f"]({ATTACKED})" in README


def test_the_lines_on_its_defense_are_those_of_the_published_record():
    below = README[README.index("--defense blur") :].partition("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith(f"{INDENT}  ")]
    assert len(lines) == 6
    assert [line for line in lines if line not in shown(DEFENDED)] == []
    assert f"]({DEFENDED})" in below
    spec = read_record(ROOT / DEFENDED).spec
    assert (spec.attack, spec.victim, spec.defense) == ("badnets_clean", "hashnet", "blur")


def test_its_board_is_the_top_of_the_published_one():
    board = (ROOT / "results/LEADERBOARD.md").read_text("utf-8")
    section = board[board.index("\n## standard, delivery files, clean labels, from scratch\n") :]
    head, *rows = cells(section.partition("\n## ")[2].partition("\n## ")[0])
    mine = cells(README[README.index("\n## The leaderboard") :])
    names = mine[0]
    assert names[:4] == ["place", "attack", "gain", "95 %"]
    placed = [row for row in rows if row[0] != "–"]
    assert mine[1:] == [[row[head.index(name)] for name in names] for row in placed]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_every_link_of_it_leads_to_a_file_of_the_repository(target: str):
    assert (ROOT / target).exists()


def test_every_page_of_the_documentation_can_be_reached_from_it():
    linked = set(re.findall(r"\]\(docs/([^)]+)\)", README))
    here = {path.name for path in (ROOT / "docs").glob("*.md")}
    made = {"index.md", "data-sets.md", "record-fields.md", "api.md"}  # for the site alone
    assert here - linked == made


def test_every_command_line_of_it_can_be_typed():
    lines = [*command_lines(README), *quoted_commands()]
    assert len(lines) == 4
    assert [(line, why) for line in lines if (why := refused(line, set()))] == []


def quoted_commands() -> list[list[str]]:
    """The words of commands in the text, and at the end of the lines that make an environment."""
    found = re.findall(r"`bench ([^`]+)`", README) + re.findall(r"&& bench (.+)$", README, re.M)
    return [shlex.split(words) for words in found if words != "show"]


def test_ci_finds_its_two_lines():
    lines = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    assert len(lines) == 2
    ci = Path(ROOT / ".ci/run")
    if ci.is_file():  # it is not in an sdist
        assert r"s/^    \(python3 -m venv .*\)$/\1/p' README.md" in ci.read_text("utf-8")
