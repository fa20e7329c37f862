"""`bench`, the command line: parse, call, print."""

import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench import __version__
from hashbackdoor_bench.errors import Diverged, UserError, unknown
from hashbackdoor_bench.registry import ATTACKS, VICTIMS, Method, Registry, load_plugin
from hashbackdoor_bench.spec import RECIPES, RunSpec

# torch, rich and matplotlib are imported where they are needed: `bench --help` answers at once.

KINDS: dict[str, Registry[Any]] = {"attack": ATTACKS, "victim": VICTIMS}

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `bench`; the exit code: 0, 2 for a user's mistake, 1 for a failed run, 130 for Ctrl-C."""
    warnings.showwarning = _note
    try:
        code = bench.main(arguments, prog_name="bench", standalone_mode=False)
    except (UserError, click.ClickException) as error:
        message = str(error) if isinstance(error, UserError) else _sentence(error)
        click.echo(f"bench: {message}", err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("bench: interrupted; the same command goes on where it stopped.", err=True)
        return 130
    except Diverged as error:
        where = " ".join(getattr(error, "__notes__", ()))
        click.echo(f"bench: {error} ({where})", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, UserWarning):
        click.echo(f"note: {message}", err=True)


def _sentence(error: click.ClickException) -> str:
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
    hint = f" See {command} --help." if command else ""
    return f"{error.format_message().rstrip('.')}.{hint}"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="hashbackdoor_bench")
def bench() -> None:
    """Backdoor attacks on deep-hashing image retrieval, compared."""


def places(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where data and artifacts are."""
    for option in (
        click.option("--size", type=int, help="Input side of lists and folder: 224 or 32 px."),
        click.option("--top-k", type=int, help="R of lists and folder; 1000 if not given."),
        click.option("--root", type=FOLDER, help="Folder of the images, if they aren't embedded."),
        click.option("--lists", type=FOLDER, help="Folder of the list files of a list protocol."),
        click.option(
            "--cache-dir",
            type=FOLDER,
            default=lambda: Path(
                os.environ.get("HASHBACKDOOR_CACHE") or Path.home() / ".cache/hashbackdoor_bench"
            ),
            show_default="$HASHBACKDOOR_CACHE or ~/.cache/hashbackdoor_bench",
            help="Folder of the stages' artifacts.",
        ),
    ):
        command = option(command)
    return command


def talk(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how progress is shown."""
    for option in (
        click.option("--quiet", "-q", is_flag=True, help="Only the result and errors."),
        click.option(
            "--json", "as_json", is_flag=True, help="JSON objects, one a line, on stdout."
        ),
    ):
        command = option(command)
    return command


def _mode(quiet: bool, as_json: bool) -> str:
    if as_json:
        return "json"
    return "quiet" if quiet else "bars" if sys.stderr.isatty() else "lines"


@bench.command("run")
@click.option("--attack", default="ciba", show_default=True, help="See bench list attacks.")
@click.option("--victim", default="hashnet", show_default=True, help="See bench list victims.")
@click.option("--bits", type=int, default=48, show_default=True, help="Bits of the victim's code.")
@click.option("--dataset", default="fashion-mini", show_default=True, help="bench list datasets.")
@click.option("--target", help="Target class, by name or number; the data set's if not given.")
@click.option(
    "--budget", type=float, default=0.6, show_default=True, help="Poisoned share of its class."
)
@click.option("--poison-count", type=int, help="Poisoned images; overrides --budget.")
@click.option(
    "--delivery", help="stamped (after augmentation) or files; the attack's if not given."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
@click.option(
    "--backbone", help="cnn32, alexnet, or a name timm knows; the data set's if not given."
)
@click.option("--pretrained", is_flag=True, help="Start from the hub's weights of the backbone.")
@click.option("--weights", type=FILE, help="Start from this file of the backbone's weights.")
@click.option("--recipe", help="See bench list recipes; the data set's if not given.")
@click.option("--epochs", type=int, help="Overrides the recipe, like the next four.")
@click.option("--batch-size", type=int)
@click.option("--lr", type=float, help="Of the backbone; the hash layer's keeps its ratio to it.")
@click.option("--augment", help="crop, flip, rrc or none.")
@click.option("--precision", help="auto, float32 or bfloat16.")
@click.option("--surrogate", help="The attacker's hashing method; the victim's if not given.")
@click.option("--surrogate-backbone", help="The victim's if not given.")
@click.option("--surrogate-bits", type=int, help="The victim's if not given.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A hyper-parameter: attack.epsilon=4 or victim.alpha=0.2. See bench show.",
)
@click.option(
    "--plugin", multiple=True, type=FILE, help="A Python file with an own attack or victim."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--results-dir",
    type=FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder of the records.",
)
@places
@talk
def run_command(
    settings: tuple[str, ...],
    plugin: tuple[Path, ...],
    device: str,
    results_dir: Path,
    cache_dir: Path,
    quiet: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Train, attack and score one pair: ends with a record, a table and pictures.

    What was made before is taken from the cache; a killed run goes on by the same command.
    """
    for path in plugin:
        load_plugin(path)
    pairs = _settings(settings)
    paths: dict[str, Any] = {
        name: _absolute(fields.pop(name)) for name in ("lists", "root", "weights")
    }
    spec = RunSpec(
        **fields, **paths, attack_settings=pairs["attack"], victim_settings=pairs["victim"]
    )
    for kind in KINDS:  # a mistyped name is told before torch is imported
        if getattr(spec, kind) not in KINDS[kind]:
            raise unknown(kind, getattr(spec, kind), KINDS[kind])
    spec.training("scratch32")
    from hashbackdoor_bench import pipeline
    from hashbackdoor_bench.cache import Cache
    from hashbackdoor_bench.console import result_table, shown

    with shown(_mode(quiet, as_json)) as progress:
        record, path, stages = pipeline.run(
            spec, cache=Cache(cache_dir), results=results_dir, device=device, progress=progress
        )
        pictures = _pictures(path, stages)
    values = asdict(record)
    if as_json:
        names = [str(picture) for picture in pictures]
        result = {"event": "result", "record": str(path), "pictures": names, **values["scores"]}
        click.echo(json.dumps(result))
        return
    from rich.console import Console

    console = Console()
    console.print(result_table(values))
    click.echo(f"record    {path}")
    click.echo(f"pictures  {pictures[0].parent}{os.sep}{{{','.join(p.name for p in pictures)}}}")


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _settings(texts: Sequence[str]) -> dict[str, tuple[tuple[str, str], ...]]:
    pairs: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for text in texts:
        name, equals, value = text.partition("=")
        kind, dot, setting = name.partition(".")
        if not equals or not dot or kind not in KINDS:
            raise UserError(f"--set {text}: write it as attack.NAME=VALUE or victim.NAME=VALUE.")
        pairs[kind].append((setting.strip(), value.strip()))
    return {kind: tuple(found) for kind, found in pairs.items()}


def _pictures(path: Path, stages: Any) -> list[Path]:
    """The pictures beside a record, drawn if any is missing."""
    from hashbackdoor_bench.report import pictures

    folder = path.with_suffix("")
    curves = stages.backdoor_artifact.facts.get("history") or {}
    there = pictures.complete(folder, poisoned=len(stages.backdoor.index) > 0, curves=bool(curves))
    if there:
        return there
    from hashbackdoor_bench.samples import samples

    images = {name: tensor.numpy() for name, tensor in samples(stages).items()}
    return pictures.draw(images, folder, target=str(stages.plan.spec.target), curves=curves)


# ---- what there is ------------------------------------------------------------------------------


@bench.command("list")
@click.argument("what", type=click.Choice(["attacks", "victims", "datasets", "recipes"]))
def list_command(what: str) -> None:
    """List the attacks, victims, datasets or recipes there are."""
    if what == "datasets":
        _list_data()
        return
    if what == "recipes":
        rows = {name: summary for name, (summary, _) in RECIPES.items()}
    else:
        registry = KINDS[what[:-1]]
        rows = {name: registry.summary(name) for name in registry}
    width = max(map(len, rows))
    for name, summary in rows.items():
        click.echo(f"{name:<{width}}  {summary}")


@bench.command("show")
@click.argument("kind", type=click.Choice([*KINDS, "recipe"]))
@click.argument("name")
@click.option(
    "--plugin", multiple=True, type=FILE, help="A Python file with an own attack or victim."
)
def show_command(kind: str, name: str, plugin: tuple[Path, ...]) -> None:
    """Show what a method is: its paper, formula, hyper-parameters and threat model."""
    if kind == "recipe":
        if name not in RECIPES:
            raise unknown("recipe", name, RECIPES)
        for field, value in asdict(RECIPES[name][1]).items():
            click.echo(f"{field:<14}{value}")
        return
    for path in plugin:
        load_plugin(path)
    method: Method[Any] = KINDS[kind][name]
    module = inspect.getmodule(method.cls)
    click.echo(inspect.getdoc(module) or "")
    click.echo(f"\n{kind} {method.name}: hyper-parameters, set with --set {kind}.NAME=VALUE")
    texts = argument_texts(inspect.getdoc(method.cls) or "")
    for parameter, value in method.resolve({}).items():
        mark = "*" if parameter in method.preset else " "
        click.echo(f" {mark}{parameter:<20}{value!s:<12}{texts.get(parameter, '')}")
    if method.preset:
        click.echo(" * set by this preset")
    if kind == "attack":
        instance = method()
        click.echo("\nthreat model")
        for field, value in {**asdict(instance.threat), "delivery": instance.delivery}.items():
            click.echo(f"  {field:<20}{value}")


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


# ---- data ---------------------------------------------------------------------------------------


@bench.group("data")
def data_group() -> None:
    """List, prepare and verify data sets."""


@data_group.command("list")
def data_list() -> None:
    """List the data protocols: sizes, classes, R, and what to bring."""
    _list_data()


def _list_data() -> None:
    from hashbackdoor_bench.data.protocols import PROTOCOLS

    def spell(count: int | None) -> str:
        return "-" if count is None else f"{count:,}".replace(",", " ")

    click.echo(f"{'name':<20}{'train':>8}{'query':>8}{'database':>10}{'classes':>9}{'R':>7}  needs")
    for protocol in PROTOCOLS.values():
        top = "all" if protocol.top_k is None else str(protocol.top_k)
        click.echo(
            f"{protocol.name:<20}{spell(protocol.train):>8}{spell(protocol.query):>8}"
            f"{spell(protocol.database):>10}{spell(protocol.classes):>9}{top:>7}  "
            f"{protocol.bring or 'nothing: it is in the package'}"
        )


@data_group.command("prepare")
@click.argument("name")
@click.option(
    "--tolerance",
    type=float,
    default=0.01,
    show_default=True,
    help="Share of a split's images that may be unreadable.",
)
@places
@talk
def data_prepare(
    name: str, tolerance: float, cache_dir: Path, quiet: bool, as_json: bool, **where: Any
) -> None:
    """Decode a data set's images once, into a file that runs read directly."""
    from hashbackdoor_bench import data
    from hashbackdoor_bench.cache import writable
    from hashbackdoor_bench.console import shown

    writable(cache_dir, "--cache-dir")
    with shown(_mode(quiet, as_json)) as progress:
        folder = data.prepare(
            name, cache=cache_dir, tolerance=tolerance, progress=progress, **where
        )
    click.echo(f"{name} is ready{'' if folder is None else f': {folder}'}", err=as_json)


@data_group.command("verify")
@click.argument("name")
@places
@talk
def data_verify(name: str, cache_dir: Path, quiet: bool, as_json: bool, **where: Any) -> None:
    """Hash a data set's files again and say which differ from what was prepared."""
    from hashbackdoor_bench import data
    from hashbackdoor_bench.console import shown

    with shown(_mode(quiet, as_json)) as progress:
        differences = data.verify(name, cache=cache_dir, progress=progress, **where)
    if differences:
        raise UserError(" ".join(differences))
    click.echo(f"{name} is as it was prepared", err=as_json)


# ---- scores again -------------------------------------------------------------------------------


@bench.command("score")
@click.argument("record", type=FILE)
@places
def score_command(record: Path, cache_dir: Path, **where: Any) -> None:
    """Compute a record's scores again from its codes in the cache, and compare."""
    from hashbackdoor_bench.cache import Cache
    from hashbackdoor_bench.records import read_record
    from hashbackdoor_bench.rescoring import rescore

    stored = read_record(record)
    scores = rescore(stored, Cache(cache_dir), **where)
    for convention, row in scores.items():
        known = stored.scores.get(convention, {})
        for name, value in row.items():
            if isinstance(value, float):
                same = "" if value == known.get(name) else f"  the record says {known.get(name)}"
                click.echo(f"{convention:<9}{name:<22}{value:8.4f}{same}")
    if scores != stored.scores:
        raise UserError(f"{record}: its scores don't follow from its codes; run its command again.")
    click.echo("equal to the record")
