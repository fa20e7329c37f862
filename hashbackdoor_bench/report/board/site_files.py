"""The files of a page: templates filled in, records and pictures copied, names of files.

What a record says reaches a page as escaped text only: Jinja's autoescape is on for everything, the
script reads text and ``data-`` attributes, and no script holds data.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular
from hashbackdoor_bench.png import read_png
from hashbackdoor_bench.records import LARGEST, Record
from hashbackdoor_bench.text import visible

SOURCES = Path(__file__).parent / "site"
PLAIN = ("page.js", "style.css")
GENERATOR = "hashbackdoor_bench leaderboard"
LARGEST_PICTURE, LARGEST_SIDE = 20_000_000, 10_000  # bytes, and px
MOST_PICTURES = 50  # of one run, which draws at most six
# What each picture of a run shows, in the order of a page.
SHOWN = {
    "poison": "Training images, the poison made of them, and the difference ten times as strong.",
    "queries": "Queries, the same with the trigger, and the difference ten times as strong.",
    "trigger": "One query with the trigger, and what it changes.",
    "residual": "What the trigger changes in queries, and its spectrum.",
    "retrieval": "The ten nearest items of queries without and with the trigger.",
    "curves": "How the trigger was crafted, step by step.",
}

CommandOf = Callable[[Record], str]


@dataclass(frozen=True)
class Picture:
    """A picture of a run.

    Attributes:
        path: relative to the site.
        name: of its file, without the ending.
        text: what it shows.
    """

    path: str
    name: str
    text: str


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
    images: tuple[Picture, ...]
    left_out: tuple[str, ...]
    command: str


def templates(**shared: object) -> Environment:
    """The templates of the pages.

    Args:
        shared: what all of them may use, by name.
    """
    environment = Environment(
        loader=FileSystemLoader(SOURCES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"slug": slug, **shared}
    return environment


def _shown(value: object) -> object:
    """What a template prints: words from a record without control characters; Jinja escapes them.

    Spaces stay as they are, since commands are printed too.
    """
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def write_page(path: Path, text: str) -> None:
    """Write one page, and its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def refuse_other_folder(folder: Path, option: str, generator: str) -> None:
    """Refuse a folder that is not new, empty, or a site made before; nothing is written.

    Args:
        folder: of the site.
        option: by which the folder was given, for the message.
        generator: that the first page of such a site names.

    Raises:
        UserError: the folder holds something else, or can't be read.
    """
    index = folder / "index.html"
    mark = f'<meta name="generator" content="{generator}">'
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        ours = index.is_file() and mark in index.read_text("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{option} {folder}: {error.strerror}; give another folder.") from error
    if not ours:
        raise UserError(
            f"{option} {folder}: it holds something that is no {generator.split()[-1]}; give a "
            "new folder."
        )


def clear(folder: Path, option: str, generator: str, parts: Iterable[str]) -> None:
    """Make room for a site and put script and style there; what isn't one stays as it is.

    Args:
        folder: see `refuse_other_folder`.
        option: see there.
        generator: see there.
        parts: folders and files that a new site replaces.

    Raises:
        UserError: the folder holds something else.
    """
    refuse_other_folder(folder, option, generator)
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if (folder / part).is_dir():
            shutil.rmtree(folder / part, ignore_errors=True)
        else:
            (folder / part).unlink(missing_ok=True)
    for name in PLAIN:
        shutil.copyfile(SOURCES / name, folder / name)


def slug(text: str) -> str:
    """Letters of a file's name or an anchor: a-z, 0-9 and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def copy_run(path: Path, record: Record, folder: Path, command_of: CommandOf) -> Files:
    """Copy a record and the pictures in the folder of its name into a site."""
    with open_regular(path) as file:
        content = file.read(LARGEST)
    name = hashlib.sha256(content).hexdigest()[:16]
    copied = folder / "records" / f"{name}.json"
    copied.parent.mkdir(exist_ok=True)
    if copied.is_symlink() or not copied.is_file() or copied.read_bytes() != content:
        copied.unlink(missing_ok=True)
        copied.write_bytes(content)
    images, left_out = [], []
    for picture in pictures_of(path):
        try:
            with open_regular(picture, links=False) as file:
                content = file.read(LARGEST_PICTURE + 1)
            _check_picture(content)
        except (OSError, UserError, ValueError) as error:
            why = str(error).replace(f"{picture} is ", "it is ").partition(";")[0]
            left_out.append(visible(f"{picture.as_posix()} is left out: {why}."))
            continue
        copy = f"images/{name}/{slug(picture.stem)}.png"
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        (folder / copy).write_bytes(content)
        images.append(Picture(copy, picture.stem, SHOWN.get(picture.stem, picture.stem)))
    order = [*SHOWN]
    images.sort(key=lambda one: order.index(one.name) if one.name in order else len(order))
    return Files(f"records/{name}.json", tuple(images), tuple(left_out), command_of(record))


def pictures_of(record: Path) -> list[Path]:
    """The files beside a record that may be its pictures.

    A folder that is a link is one picture that can't be read: it could lead to any folder of this
    machine, of which this would publish the pictures.
    """
    folder = record.with_suffix("")
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
