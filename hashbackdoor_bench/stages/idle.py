"""Options of a run that change nothing, because its attack, victim or defense has no use for them.

`resolve` sets these fields to what they are without the option, so that the key doesn't depend on
them. Those of the surrogate are in the keys of published records of attacks that have none, and
keys don't change, so they are told instead.
"""

from collections.abc import Iterator
from dataclasses import replace

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.spec import RunSpec

WHY = {
    "budget": "attack {attack} poisons no image",
    "poison_count": "attack {attack} poisons no image",
    "epochs": "victim {victim} is solved and no network of this run is trained by its recipe",
    "lr": "victim {victim} is solved and no network of this run is trained by its recipe",
    "clean_share": "defense {defense} takes no clean images",
}
SURROGATES = ("surrogate", "surrogate_backbone", "surrogate_bits", "surrogate_recipe")


def without_idle(given: RunSpec, full: RunSpec) -> RunSpec:
    """A run without the options that change nothing.

    Args:
        given: the run as it was asked for.
        full: the same with every default filled in.
    """
    return replace(given, **{name: getattr(RunSpec, name) for name in _idle(given, full)})


def refuse_idle(given: RunSpec, full: RunSpec) -> None:
    """Refuse options that change nothing; see `without_idle`.

    Raises:
        UserError: the first of them, and why it changes nothing.
    """
    for name in _idle(given, full):
        raise UserError(
            f"--{name.replace('_', '-')} {getattr(given, name)} changes nothing, since "
            f"{WHY[name].format_map(vars(full))}: leave it out."
        )


def idle_surrogate(full: RunSpec) -> Iterator[str]:
    """A sentence if a run names a surrogate of its own and its attack takes none."""
    attack = ATTACKS[full.attack]
    made = attack(**dict(full.attack_settings))
    usual = (made.surrogate or full.victim, full.backbone, full.bits, None)
    own = [
        f"--{name.replace('_', '-')} {getattr(full, name)}"
        for name, value in zip(SURROGATES, usual, strict=True)
        if getattr(full, name) != value
    ]
    if own and made.threat.knowledge != "surrogate":
        yield (
            f"{' and '.join(own)} changes no number, since attack {full.attack} takes no "
            "surrogate, but it is in the record's key."
        )


def _idle(given: RunSpec, full: RunSpec) -> list[str]:
    """The names of the options that were given and that the full run does without."""
    return [
        name
        for name in WHY
        if getattr(given, name) not in (getattr(RunSpec, name), getattr(full, name))
    ]
