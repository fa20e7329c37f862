"""What Python gives to a command, read as the command line would read it."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from hashbackdoor_bench.cli.names import refuse_unknown_names
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.text import quoted

RUN = get_type_hints(RunSpec)
PATHS = ("lists", "root", "weights")
KINDS = {
    float: "a number",
    bool: "True or False",
    int: "a whole number",
    Path: "a path",
    str: "a word",
}


def arguments_given(function: Callable[..., object], **given: object) -> dict[str, Any]:
    """Arguments of a function, read as the types that it declares.

    Args:
        function: it has annotations of the kinds in ``KINDS``, or None.
        given: some of its arguments.

    Raises:
        UserError: a value is of another kind.
    """
    hints = get_type_hints(function)
    return {name: value_given(name, value, hints[name]) for name, value in given.items()}


def paths_given(name: str, value: object) -> tuple[Path, ...]:
    """An argument that is a path, or a list of paths.

    Raises:
        UserError: it is something else.
    """
    several = value if isinstance(value, list | tuple) else (value,)
    return tuple(value_given(name, one, Path) for one in several)


def run_given(given: Mapping[str, object]) -> RunSpec:
    """The run that arguments ask for.

    Args:
        given: fields of `RunSpec`. Numbers may be numpy's, paths relative, the target the number of
            a class, and settings dicts.

    Raises:
        UserError: there is no such field or method, or a value is of another kind or out
            of range.
    """
    spec = RunSpec(**fields_given(given))
    refuse_unknown_names(spec)
    return spec


def fields_given(given: Mapping[str, object]) -> dict[str, Any]:
    """Fields of a run, read as the types that they have; their ranges are not checked.

    Raises:
        UserError: there is no such field, or a value is of another kind.
    """
    for name in given:
        if name not in RUN:
            raise unknown("option", name, RUN)
    return {name: value_given(name, value, RUN[name]) for name, value in given.items()}


def value_given(name: str, value: object, hint: Any) -> Any:
    """A value, read as a type.

    Args:
        name: what it is called.
        value: what was given. Numbers may be numpy's, and a class is a word or a number.
        hint: a kind in ``KINDS``, or several with ``|``; with None among them, None is allowed.

    Raises:
        UserError: it is of another kind.
    """
    numpy = sys.modules.get("numpy")  # without it there is no such value
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    if name.endswith("_settings"):
        return settings_given(name, value)
    kinds = get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return None
    if name in PATHS and value and isinstance(value, str | os.PathLike):
        return str(Path(value).absolute())
    if Path in kinds and value and isinstance(value, str | os.PathLike):
        return Path(value)
    kind = next(kind for kind in KINDS if kind in kinds)
    if type(value) is int and (kind is float or name == "target"):
        return kind(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{name} is {quoted(value)}: it must be {KINDS[kind]}.")
    return value


def settings_given(name: str, value: object) -> tuple[tuple[str, object], ...]:
    """The hyper-parameters in a dict, or in (name, value) pairs.

    Raises:
        UserError: it is something else.
    """
    pairs: Any = value.items() if isinstance(value, Mapping) else value
    try:
        return tuple((str(one), setting) for one, setting in pairs)
    except (TypeError, ValueError) as error:
        example = f"{name}={{'epsilon': 4}}"
        message = f"{name} is {quoted(value)}: give a dict, such as {example}."
        raise UserError(message) from error
