"""The arguments of `hashbackdoor_bench.run` as a run, read as the command line would read them."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np

from hashbackdoor_bench.cli.names import refuse_unknown_names
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.text import quoted

PATHS = ("lists", "root", "weights")
KINDS = {float: "a number", bool: "True or False", int: "a whole number", str: "a word"}


def run_given(given: Mapping[str, object]) -> RunSpec:
    """The run that arguments ask for.

    Args:
        given: fields of `RunSpec`. Numbers may be numpy's, paths relative, the target the number of
            a class, and settings dicts.

    Raises:
        UserError: there is no such field or method, or a value is of another kind or out
            of range.
    """
    hints = get_type_hints(RunSpec)
    values = {}
    for name, value in given.items():
        if name not in hints:
            raise unknown("option", name, hints)
        values[name] = _value(name, value, hints[name])
    spec = RunSpec(**values)
    refuse_unknown_names(spec)
    return spec


def _value(name: str, value: object, hint: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if name.endswith("_settings"):
        return _settings(name, value)
    kinds = get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return None
    if name in PATHS and value and isinstance(value, str | os.PathLike):
        return str(Path(value).absolute())
    kind = next(kind for kind in KINDS if kind in kinds)
    if type(value) is int and (kind is float or name == "target"):
        return kind(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{name} is {quoted(value)}: it must be {KINDS[kind]}.")
    return value


def _settings(name: str, value: object) -> tuple[tuple[str, object], ...]:
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        return tuple((str(one), setting) for one, setting in pairs)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        example = f"{name}={{'epsilon': 4}}"
        message = f"{name} is {quoted(value)}: give a dict, such as {example}."
        raise UserError(message) from error
