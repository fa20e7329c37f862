"""Comparing two values of a record that must agree."""

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.text import visible

ROUNDING = 1e-9  # of a score: sums are rounded in another order on another machine
COUNTING = 1e-6  # of a number of queries, computed as a share times all of them


def agree(what: str, found: object, follows: object, source: str) -> None:
    """Refuse a value that isn't the one that follows from another part, named ``source``."""
    if found != follows:
        one, other = (visible(str(value))[:80] for value in (found, follows))
        raise UserError(f"{what} is {one}, but {source} gives {other}.")


def near(what: str, found: float | None, follows: float | None, source: str) -> None:
    """Refuse a score that differs from the one that follows by more than rounding."""
    if (found is None) != (follows is None) or (
        found is not None and follows is not None and abs(found - follows) > ROUNDING
    ):
        raise UserError(f"{what} was changed: it is {found}, but {follows} follows from {source}.")


def within(what: str, value: float | None, low: float, high: float) -> None:
    """Refuse a value outside of a range; None is in every range."""
    if value is not None and not low - ROUNDING <= value <= high + ROUNDING:
        raise UserError(f"{what} is {value:g}, which is not between {low:g} and {high:g}.")


def whole(number: float) -> bool:
    """Whether a number is whole, but for rounding."""
    return abs(number - round(number)) <= COUNTING * max(1.0, abs(number))
