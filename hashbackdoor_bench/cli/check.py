"""``bench check``: whether a method keeps what every method promises."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench.cli.options import bench, plugin_option
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import unknown
from hashbackdoor_bench.registry import METHODS, Method, load_plugin


@bench.command("check")
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE...")
@plugin_option
def check_command(names: tuple[str, ...], plugin: tuple[Path, ...]) -> int:
    """Check methods, given by name or by file, against the contract; exit code 1 if it is broken.

    Takes seconds: no network is trained, and attacks are crafted with their quick settings.
    """
    for path in plugin:
        load_plugin(path)
    wanted = [one for name in names for one in _methods(name)]
    from hashbackdoor_bench import checks

    look: dict[str, Callable[[Method[Any]], list[checks.Finding]]] = {
        "attack": checks.check_attack,
        "victim": checks.check_victim,
        "defense": checks.check_defense,
    }
    rules = {"attack": checks.ATTACK_RULES, "defense": checks.DEFENSE_RULES}
    code = 0
    for kind, name in wanted:
        method = METHODS[kind][name]
        findings = look[kind](method)
        for one in findings:
            say(f"{kind} {name}: {one.rule}:", f"    {one.text}")
            code = 1
        if not findings:
            kept = rules[kind] if kind in rules else checks.victim_rules(method)
            say(f"{kind} {name}: keeps all {len(kept)} promises")
    return code


def _methods(name: str) -> Iterator[tuple[str, str]]:
    """Kind and name of the methods of a name, or in a file.

    Raises:
        UserError: there is no such method.
    """
    file = name.endswith(".py")
    names = load_plugin(Path(name)) if file else [name.replace("-", "_")]
    found = [(kind, one) for one in names for kind in METHODS if one in METHODS[kind]]
    if not found:
        known = [one for registry in METHODS.values() for one in registry]
        raise unknown("attack, victim or defense", name, known)
    yield from found
