"""``bench check``: whether a method keeps what every method promises."""

from collections.abc import Iterator
from pathlib import Path

import click

from hashbackdoor_bench.cli.options import bench, plugin_option
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import unknown
from hashbackdoor_bench.registry import METHODS, load_plugin


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
    from hashbackdoor_bench.checks import ATTACK_RULES, check_attack, check_victim, victim_rules

    code = 0
    for kind, name in wanted:
        method = METHODS[kind][name]
        findings = check_attack(method) if kind == "attack" else check_victim(method)
        for one in findings:
            say(f"{kind} {name}: {one.rule}:", f"    {one.text}")
            code = 1
        if not findings:
            rules = ATTACK_RULES if kind == "attack" else victim_rules(method)
            say(f"{kind} {name}: keeps all {len(rules)} promises")
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
        raise unknown("attack or victim", name, known)
    yield from found
