"""``bench list`` and ``bench show``: the methods, data sets, recipes and records."""

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench.cli.data import list_data
from hashbackdoor_bench.cli.options import FOLDER, bench, plugin_option
from hashbackdoor_bench.cli.record import show_record
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.registry import METHODS, Method, load_plugin
from hashbackdoor_bench.spec import RECIPES


def _several(kind: str) -> str:
    return f"{kind}s"


@bench.command("list")
@click.argument("what", type=click.Choice([*map(_several, METHODS), "datasets", "recipes"]))
def list_command(what: str) -> None:
    """List the attacks, victims, defenses, datasets or recipes.

    Methods have three columns: name on the command line, name in papers, description.
    """
    if what == "datasets":
        list_data()
        return
    if what == "recipes":
        rows = {name: summary for name, (summary, _) in RECIPES.items()}
    else:
        registry = METHODS[what[:-1]]
        names = {name: registry.published(name) for name in registry}
        column = max(map(len, names.values()))
        rows = {
            name: f"{published:<{column}}  {registry.summary(name)}"
            for name, published in names.items()
        }
    width = max(map(len, rows))
    for name, summary in rows.items():
        say(f"{name:<{width}}  {summary}")


@bench.command("show")
@click.argument("kind", type=click.Choice([*METHODS, "recipe", "record"]))
@click.argument("name")
@click.option(
    "--bundle",
    type=FOLDER,
    help="With a record: write its numbers, pictures, figures, command and provenance into this "
    "folder, whose index.html opens in a browser without a server.",
)
@plugin_option
def show_command(kind: str, name: str, bundle: Path | None, plugin: tuple[Path, ...]) -> None:
    """Describe a method: its paper, formula, hyper-parameters and threat model; or a record.

    NAME is that of a method or recipe, or the file of a record: `bench show record
    runs/fashion-mini/hashnet-48/ciba-s0-….json --bundle DIR`.
    """
    if kind == "record":
        for path in plugin:
            load_plugin(path)
        show_record(Path(name), bundle)
        return
    if bundle is not None:
        raise UserError(
            f"--bundle packs a record, and {kind} {name} is none: type `bench show record FILE "
            "--bundle DIR`."
        )
    if kind == "recipe":
        if name not in RECIPES:
            raise unknown("recipe", name, RECIPES)
        for field, value in asdict(RECIPES[name][1]).items():
            say(f"{field:<14}{value}")
        return
    for path in plugin:
        load_plugin(path)
    method: Method[Any] = METHODS[kind][name]
    module = inspect.getmodule(method.cls)
    say(*(inspect.getdoc(module) or "").split("\n"))
    published = METHODS[kind].published(method.name)
    say("", f"{kind} {method.name}, in tables {published}")
    say("", f"hyper-parameters, set with --set {kind}.NAME=VALUE")
    texts = argument_texts(inspect.getdoc(method.cls) or "")
    for parameter, value in method.resolve({}).items():
        mark = "*" if parameter in method.preset else " "
        say(f" {mark}{parameter:<20}{value!s:<12}{texts.get(parameter, '')}")
    if method.preset:
        say(" * set by this preset")
    if kind == "victim":
        loss = method(16, 2, 1)
        for usual, own in loss.recipes.items():
            say("", f"recipe {own}, where a data set's default is {usual} and none is named")
        if not loss.trained:
            say("", "nothing is trained: add --recipe frozen with --pretrained or --weights FILE")
    if kind == "attack":
        instance = method()
        say("", "threat model")
        for field, value in {**asdict(instance.threat), "delivery": instance.delivery}.items():
            say(f"  {field:<20}{value}")
    if kind == "defense":
        _show_defense(method())


def _show_defense(defense: Any) -> None:
    """What a defense does and needs."""
    facts = {"hooks": defense.hooks(), "sees": sorted(defense.assumes.sees)}
    facts |= {"needs": sorted(defense.assumes.needs), "grid": [f"{v:g}" for v in defense.grid]}
    numbers = {"clean": "clean images", "per_class": "clean images a class", "group": "group size"}
    say("", "what it does and assumes")
    for name, values in facts.items():
        if values:
            which = f" of {defense.strength}" if name == "grid" else ""
            say(f"  {name + which:<22}{', '.join(values)}")
    for name, text in numbers.items():
        if getattr(defense.assumes, name):
            say(f"  {text:<22}at least {getattr(defense.assumes, name)}")


def argument_texts(docstring: str) -> dict[str, str]:
    """The descriptions of a Google docstring's ``Args:``, each on one line."""
    texts: dict[str, str] = {}
    inside, name = False, ""
    for line in docstring.splitlines():
        if line.strip() == "Args:":
            inside = True
        elif inside and line and not line.startswith(" "):
            break
        elif inside and line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(":")
            texts[name] = text.strip()
        elif inside and name and line.strip():
            texts[name] += " " + line.strip()
    return texts
