"""The page of the data sets: a card for each protocol of the package."""

from html import escape
from pathlib import Path

import record_rows
from docstring_html import facts_table

from hashbackdoor_bench.data import PROTOCOLS, Protocol

PICTURES = Path(__file__).parents[1] / "pictures"
NEEDS = {
    "embedded": "Nothing: it is in the package.",
    "fashion-mnist": "The files of Fashion-MNIST: of the system's package, under ``--root``, or "
    "downloaded.",
    "cifar10": "The folder ``cifar-10-batches-py`` under ``--root``, or a network.",
    "lists": "Three lists of images (``--lists``) and the folder of the images (``--root``).",
    "folder": "One folder of images for each class (``--root``).",
}
WHERE = {
    "embedded": "",
    "fashion-mnist": " --root FILES",
    "cifar10": " --root FILES",
    "lists": " --lists LISTS --root IMAGES",
    "folder": " --root CLASS_FOLDERS",
}


def anchor(name: str) -> str:
    """The anchor of a data set's card."""
    return name.replace("@", "-")


def command(ours: Protocol) -> str:
    """A command that runs on a data set."""
    pretrained = " --pretrained" if ours.size > 192 else ""
    return f"bench run --dataset {ours.name}{WHERE[ours.source]}{pretrained}"


def page(introduction: str) -> str:
    """All data sets as Markdown."""
    return "\n\n".join([introduction, *map(_card, PROTOCOLS.values())]) + "\n"


def _card(ours: Protocol) -> str:
    top_k = ours.top_k or "the whole database"
    facts = {
        "Images": " · ".join(
            f"{n:,} {split}".replace(",", " ") if n else f"{split} as in your files"
            for split, n in (
                ("train", ours.train), ("query", ours.query), ("database", ours.database)
            )
        ),
        "Classes": str(ours.classes or "as in your files"),
        "R of MAP@R": str(top_k),
        "Network's input": f"{ours.size} px, ``--size`` changes it"
        if ours.name in ("lists", "folder") else f"{ours.size} px",
        "Default backbone and recipe": f"``{ours.backbone}``, ``{ours.recipe}``",
        "Default target": f"``{ours.target}``",
        "What you need": NEEDS[ours.source],
    }  # fmt: skip
    rows = facts_table(facts.items())
    picture = PICTURES / f"data-{ours.name}.png"
    image = (
        f'<figure class="pixels"><img src="pictures/{picture.name}" alt="images of each class">'
        "<figcaption>Eight training images of each class.</figcaption></figure>\n\n"
        if picture.is_file()
        else ""
    )
    results = record_rows.of_data(ours.name)
    shown = f"<details><summary>Published results, in percent</summary>{results}</details>\n\n"
    return (
        f"## {ours.name} {{ #{anchor(ours.name)} }}\n\n{escape(_sentence(ours.description))}\n\n"
        f"{image}{rows}\n\n```sh\n{command(ours)}\n```\n\n"
        f"{shown if results else ''}"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
