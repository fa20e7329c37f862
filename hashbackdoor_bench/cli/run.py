"""``bench run``: train, attack, defend and score one pair of attack and victim."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from hashbackdoor_bench.cli.config import config_option
from hashbackdoor_bench.cli.names import refuse_unknown_names
from hashbackdoor_bench.cli.options import (
    FILE,
    bench,
    device_option,
    log_option,
    mode_of,
    places,
    plugin_option,
    results_option,
    talk,
    threads_option,
    tolerance_option,
)
from hashbackdoor_bench.cli.terminal import console, say
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.memory import no_collection
from hashbackdoor_bench.registry import METHODS, load_plugin
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.text import shortened


@bench.command("run")
@click.option("--attack", default=RunSpec.attack, show_default=True, help="See bench list attacks.")
@click.option("--victim", default=RunSpec.victim, show_default=True, help="See bench list victims.")
@click.option(
    "--bits", type=int, default=RunSpec.bits, show_default=True, help="Bits of the victim's code."
)
@click.option(
    "--dataset", default=RunSpec.dataset, show_default=True, help="See bench list datasets."
)
@click.option(
    "--target",
    help="Target class, by name or number, or several as 'person + dog' where images have several "
    "labels; the data set's default if not given.",
)
@click.option(
    "--budget",
    type=float,
    default=RunSpec.budget,
    show_default=True,
    help="Share of the target class that is poisoned.",
)
@click.option("--poison-count", type=int, help="Poisoned images; overrides --budget.")
@click.option(
    "--delivery",
    help="How poison reaches training: stamped (after augmentation), frozen (poison isn't "
    "augmented), files, or jpeg:QUALITY for files that are compressed (jpeg: of quality 75); the "
    "attack's default if not given.",
)
@click.option(
    "--seed", type=int, default=RunSpec.seed, show_default=True, help="Seed of all random numbers."
)
@click.option(
    "--backbone", help="cnn32, alexnet or a timm model; the data set's default if not given."
)
@click.option("--pretrained/--no-pretrained", help="Start from published weights of the backbone.")
@click.option("--weights", type=FILE, help="Start from this file of the backbone's weights.")
@click.option(
    "--weights-by-order/--no-weights-by-order",
    help="Take the tensors of --weights in their order, whatever their names.",
)
@click.option(
    "--pool",
    help="How the backbone pools its last map: avg, max, or flatten for all of it; as published if "
    "not given.",
)
@click.option(
    "--hidden",
    type=int,
    default=RunSpec.hidden,
    show_default=True,
    help="Width of a hidden layer before the hash layer; 0 for none.",
)
@click.option(
    "--recipe",
    help="See bench list recipes; that of the victim or the data set if not given.",
)
@click.option("--epochs", type=int, help="Overrides the recipe, as do the next four options.")
@click.option("--batch-size", type=int, help="Images per training step.")
@click.option(
    "--lr",
    type=float,
    help="Learning rate of the backbone; that of the hash layer changes by the same factor.",
)
@click.option("--augment", help="crop, flip, rrc or none.")
@click.option("--precision", help="auto, float32 or bfloat16.")
@click.option("--surrogate", help="The attacker's hashing method; the victim's if not given.")
@click.option("--surrogate-backbone", help="The attacker's backbone; the victim's if not given.")
@click.option(
    "--surrogate-bits", type=int, help="Bits of the surrogate's code; the victim's if not given."
)
@click.option(
    "--surrogate-recipe",
    help="How the surrogate is trained; as --recipe says, or as its method needs, if not given.",
)
@click.option(
    "--surrogate-pretrained/--no-surrogate-pretrained",
    default=None,
    help="Whether the surrogate's backbone starts from published weights; as the victim's if not "
    "given.",
)
@click.option(
    "--defense", default=RunSpec.defense, show_default=True, help="See bench list defenses."
)
@click.option(
    "--clean-share",
    type=float,
    default=RunSpec.clean_share,
    show_default=True,
    help="Number of clean images that the defender has, as a share of the training images.",
)
@click.option(
    "--operating-point",
    default=RunSpec.operating_point,
    show_default=True,
    help="published, or tuned: the largest strength of the defense that costs at most 2 points of "
    "MAP on the defender's clean images.",
)
@click.option(
    "--aware",
    default=RunSpec.aware,
    show_default=True,
    help="A defense that the attacker expects and prepares for, such as jpeg or cutmix.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A hyper-parameter: attack.epsilon=4, victim.alpha=0.2 or defense.u=4. See bench show.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Run nothing: show what would be run, which of its stages are in the cache, and how long "
    "the others take. Images of yours are prepared, since all depends on them.",
)
@tolerance_option
@plugin_option
@device_option
@threads_option()
@results_option
@places
@log_option
@config_option
@talk
def run_command(
    dry_run: bool,
    settings: tuple[str, ...],
    plugin: tuple[Path, ...],
    device: str,
    threads: int | None,
    results_dir: Path,
    cache_dir: Path,
    log_dir: Path | None,
    quiet: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Train, attack, defend and score one pair of attack and victim; writes a record and pictures.

    Finished stages are taken from the cache, so the same command continues a killed run.
    """
    for path in plugin:
        load_plugin(path)
    spec = spec_of(settings, values)
    refuse_unknown_names(spec)  # at once, before torch is imported
    mode = mode_of(quiet, as_json)
    if dry_run:
        from hashbackdoor_bench.cli.dry_run import show_plan

        show_plan(spec, cache_dir, results_dir, device, threads, mode)
        return
    with no_collection():
        from hashbackdoor_bench.cli.console import shown
        from hashbackdoor_bench.cli.result import result_table
        from hashbackdoor_bench.cli.training_log import training_log
        from hashbackdoor_bench.records import collapsed
        from hashbackdoor_bench.report.pictures import draw_missing
        from hashbackdoor_bench.stages import open_cache, run

    with training_log(log_dir, results_dir) as log, shown(mode) as progress:
        record, path, stages = run(
            spec,
            cache=open_cache(cache_dir),
            results=results_dir,
            device=device,
            threads=threads,
            progress=progress,
            log=log,
            draw=draw_missing,
        )
    pictures = stages.pictures
    if as_json:
        names = [str(picture) for picture in pictures]
        result: dict[str, Any] = {"event": "result", "record": str(path), "pictures": names}
        if broken := collapsed(record):
            result["collapsed"] = list(broken)
        if record.defense is not None:
            result["defense"] = msgspec.to_builtins(record.defense)
        say(json.dumps({**result, **msgspec.to_builtins(record.scores)}))
        return
    console().print(result_table(record))
    say(f"record    {path}")
    say(f"pictures  {pictures[0].parent}{os.sep}{{{','.join(p.name for p in pictures)}}}")


def spec_of(settings: Sequence[str], values: Mapping[str, Any]) -> RunSpec:
    """The run that the options of ``bench run`` ask for.

    Args:
        settings: the texts of ``--set``.
        values: the other options that are fields of a run.
    """
    pairs = settings_of(settings)
    chosen: dict[str, Any] = {f"{kind}_settings": found for kind, found in pairs.items()}
    paths = {name: _absolute(values[name]) for name in ("lists", "root", "weights")}
    return RunSpec(
        **{**values, **paths},
        **chosen,
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def settings_of(texts: Sequence[str]) -> dict[str, tuple[tuple[str, str], ...]]:
    """The hyper-parameters that texts of ``--set`` give, by kind of method.

    Raises:
        UserError: a text is not of the form KIND.NAME=VALUE.
    """
    pairs: dict[str, list[tuple[str, str]]] = {kind: [] for kind in METHODS}
    for text in texts:
        name, equals, value = text.partition("=")
        kind, dot, setting = name.partition(".")
        if not equals or not dot or kind not in METHODS:
            raise UserError(
                f"--set {shortened(text)}: write it as attack.NAME=VALUE, victim.NAME=VALUE "
                "or defense.NAME=VALUE."
            )
        pairs[kind].append((setting.strip(), value.strip()))
    return {kind: tuple(found) for kind, found in pairs.items()}
