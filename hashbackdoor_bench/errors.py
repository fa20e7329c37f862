"""Errors of users: each message is a sentence with the value, the rule and what to type next."""

from collections.abc import Iterable
from difflib import get_close_matches
from math import inf, isinf

from hashbackdoor_bench.text import listed, quoted, sentence


class UserError(Exception):
    """A mistake in what the user typed or brought; `bench` prints it and exits with code 2.

    The message is one sentence that names the value, the rule and what to type next. Values in it
    come from outside, so control characters are escaped and a very long message is cut.
    """

    def __init__(self, message: object) -> None:
        super().__init__(sentence(message))


class NotApplicable(UserError):
    """A defense that is sound, but doesn't go with the attack or victim of a run.

    In a suite that is a result, n/a with this reason, and no failure.
    """


class Diverged(Exception):
    """A loss became NaN or infinite; `bench` prints the message and exits with code 1."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown name: it suggests similar names, or lists all if none is similar.

    Args:
        kind: what the name was supposed to be, in the singular: ``"attack"``.
        name: what the user typed.
        known: the names that exist.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"choose one of {listed(names)}." if names else "there is none."
    return UserError(f"unknown {kind} {quoted(name)}: {hint}")


def check(name: str, value: float, low: float, high: float = inf, *, whole: bool = False) -> None:
    """Refuse a hyper-parameter outside its range, ends included.

    Args:
        name: the hyper-parameter, as the user typed it.
        value: its value.
        low: smallest allowed value.
        high: largest allowed value.
        whole: whether it must be a whole number.

    Raises:
        UserError: the value is outside the range, not whole, or NaN.
    """
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = inf
    if not low <= number <= high or isinf(number) or (whole and number % 1):
        rule = f"between {low:.15g} and {high:.15g}" if high < inf else f"at least {low:.15g}"
        given = quoted(value) if isinstance(value, int) else f"{number:g}"
        raise UserError(f"{name} is {given}: it must be {'a whole number ' * whole}{rule}.")


def misfit(error: Exception) -> str:
    """msgspec's message on a value of the wrong type, as ``spec.seed: expected …, got …``."""
    rule, _, place = str(error).partition(" - at ")
    place = place.replace("`", "").removeprefix("$").removeprefix(".")
    return f"{place}: {rule[:1].lower()}{rule[1:]}" if place else f"{rule[:1].lower()}{rule[1:]}"
