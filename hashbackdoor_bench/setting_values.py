"""Reading values of fields and hyper-parameters as the types that are declared for them."""

from math import isfinite
from typing import Any, Literal, get_args, get_origin

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.text import quoted

LARGEST = 10**308  # beyond it, a whole number is no float


def read(name: str, value: object, annotation: Any) -> Any:
    """``value`` as the type ``annotation``: bool, int, float, str, a Literal, or these | None.

    Raises:
        UserError: it is of another type; the sentence names what is allowed.
    """
    options = get_args(annotation) if get_origin(annotation) is not Literal else (annotation,)
    for option in options or (annotation,):
        if option is type(None) and (value is None or str(value).lower() == "none"):
            return None
        if get_origin(option) is Literal and (value in get_args(option)):
            return value
        if option is bool and str(value).lower() in ("true", "false", "yes", "no", "1", "0"):
            return str(value).lower() in ("true", "yes", "1")
        if option is str and isinstance(value, str):
            return value
        if option in (int, float) and not isinstance(value, bool):
            if option is int and type(value) is int and abs(value) < LARGEST:
                return value  # a float has no more than 53 bits of it
            try:
                number = float(str(value))
            except ValueError:
                continue
            if isfinite(number) and (option is float or number.is_integer()):
                return option(number)
    raise UserError(f"{name} is {quoted(value)}: it must be {_spell(annotation)}.")


def _spell(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if options := get_args(annotation):
        words = [_spell(one) for one in options if one is not int or float not in options]
        return " or ".join(words)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return names.get(annotation, "none")
