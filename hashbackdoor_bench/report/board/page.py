"""The leaderboard as a static site: one folder that works from a file, with no external request.

What a record says reaches the page as escaped text only: Jinja's autoescape is on for everything,
the script reads text and ``data-`` attributes, and no script holds data.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular
from hashbackdoor_bench.png import read_png
from hashbackdoor_bench.records import LARGEST
from hashbackdoor_bench.report.board import rules, wording
from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.claimed_order import claimed_order
from hashbackdoor_bench.report.board.defenses import DefenseBoard
from hashbackdoor_bench.report.board.entries import Entry, ScoredRun
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.text import visible

SOURCES = Path(__file__).parent / "site"
PLAIN = ("page.js", "style.css")
GENERATOR = '<meta name="generator" content="hashbackdoor_bench leaderboard">'
LARGEST_PICTURE, LARGEST_SIDE = 20_000_000, 10_000  # bytes, and px
MOST_PICTURES = 50  # of one run, which draws at most six
PARTS = ("attacks", "images", "records")  # folders that a new site replaces


@dataclass(frozen=True)
class Files:
    """Where a run's files stand in the site, and the command that makes it again.

    Attributes:
        record: its JSON, relative to the site.
        images: its pictures.
        left_out: a sentence for each of its pictures that is not shown.
        command: to be typed.
    """

    record: str
    images: tuple[str, ...]
    left_out: tuple[str, ...]
    command: str


def write_site(
    found: Sequence[Board],
    left_out: Sequence[str],
    folder: Path,
    command_of: Callable[[RunSpec], str],
    defenses: Sequence[DefenseBoard] = (),
) -> Path:
    """Write the site; its first page.

    Args:
        found: the boards, in the order of the page.
        left_out: sentences of a `Collection`, shown at the foot, with those on pictures.
        folder: of the site; new, empty, or a site made before.
        command_of: the text of the command that makes a run.
        defenses: the boards of defenses, which stand below.

    Raises:
        UserError: the folder holds something else.
    """
    _clear(folder)
    for name in PLAIN:
        shutil.copyfile(SOURCES / name, folder / name)
    pages = _names(found)

    def page_of(board: Board, entry: Entry) -> str:
        return pages[_slug(f"{board.suite} {board.title}"), entry.runs[0].path]

    files = {run.path: _copy(run, folder, command_of) for run in _runs(found)}
    environment = Environment(
        loader=FileSystemLoader(SOURCES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "wording": wording, "rules": rules, "page_of": page_of, "files": files, "anchor": _slug,
        "claimed_order": claimed_order,
    }  # fmt: skip
    index = folder / "index.html"
    victims = {wording.victim_name(victim, board) for board in found for victim in board.victims}
    template = environment.get_template("index.html")
    everything = [*left_out, *(text for one in files.values() for text in one.left_out)]
    text = template.render(
        boards=found, victims=sorted(victims), left_out=everything, defenses=defenses
    )
    _write(index, text)
    template = environment.get_template("attack.html")
    for board in found:
        for entry in board.entries:
            page = folder / page_of(board, entry)
            _write(page, template.render(board=board, entry=entry))
    return index


def _shown(value: object) -> object:
    """What a template prints: words from a record without control characters; Jinja escapes them.

    Spaces stay as they are, since commands are printed too.
    """
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _clear(folder: Path) -> None:
    """Make room for a site; what isn't one stays as it is."""
    index = folder / "index.html"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        ours = index.is_file() and GENERATOR in index.read_text("utf-8", errors="replace")
        if not ours:
            raise UserError(
                f"--site {folder}: it holds something that is no leaderboard; give a new folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)


def _runs(found: Iterable[Board]) -> list[ScoredRun]:
    return [run for board in found for entry in board.entries for run in entry.runs]


def _names(found: Iterable[Board]) -> dict[tuple[str, str], str]:
    """The page of each entry, by its board and first record; no record can choose its name."""
    names: dict[tuple[str, str], str] = {}
    for board in found:
        of_board = _slug(f"{board.suite} {board.title}")
        for entry in board.entries:
            stem = _slug(f"{board.suite} {board.delivery} {entry.label}")
            taken = sum(name.startswith(f"attacks/{stem}.") for name in names.values())
            name = f"attacks/{stem}.{taken}.html" if taken else f"attacks/{stem}.html"
            names[of_board, entry.runs[0].path] = name
    return names


def _slug(text: str) -> str:
    """Letters of a file's name or an anchor: a-z, 0-9 and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _copy(run: ScoredRun, folder: Path, command_of: Callable[[RunSpec], str]) -> Files:
    """Copy a record and the pictures in the folder of its name."""
    path = Path(run.path)
    with open_regular(path) as file:
        content = file.read(LARGEST)
    name = hashlib.sha256(content).hexdigest()[:16]
    record = folder / "records" / f"{name}.json"
    record.parent.mkdir(exist_ok=True)
    record.write_bytes(content)
    images, left_out = [], []
    for picture in _pictures(path.with_suffix("")):
        try:
            with open_regular(picture, links=False) as file:
                content = file.read(LARGEST_PICTURE + 1)
            _check_picture(content)
        except (OSError, UserError, ValueError) as error:
            why = str(error).replace(f"{picture} is ", "it is ").partition(";")[0]
            left_out.append(visible(f"{picture.as_posix()} is left out: {why}."))
            continue
        copy = f"images/{name}/{_slug(picture.stem)}.png"
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        (folder / copy).write_bytes(content)
        images.append(copy)
    command = command_of(run.record.spec)
    return Files(f"records/{name}.json", tuple(images), tuple(left_out), command)


def _pictures(folder: Path) -> list[Path]:
    """The files of a run's folder that may be pictures.

    A folder that is a link is one picture that can't be read: it could lead to any folder of this
    machine, of which this would publish the pictures.
    """
    if folder.is_symlink():
        return [folder]
    return sorted(folder.glob("*.png"))[:MOST_PICTURES] if folder.is_dir() else []


def _check_picture(content: bytes) -> None:
    """Refuse what isn't a PNG of the size of a picture.

    Raises:
        ValueError: why not.
    """
    if len(content) > LARGEST_PICTURE:
        raise ValueError(f"it has more than {LARGEST_PICTURE / 1e6:g} MB")
    png = read_png(content)
    if max(png.width, png.height) > LARGEST_SIDE:
        raise ValueError(
            f"it has {png.width} x {png.height} px, more than {LARGEST_SIDE} on a side"
        )
