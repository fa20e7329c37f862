"""Rules of a contract: functions of a trial that yield a sentence for each broken promise."""

import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, getfile, signature
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.network import HashModel
from hashbackdoor_bench.registry import Method
from hashbackdoor_bench.spec import canonical

T = TypeVar("T")
Rule = Callable[[T], Iterator[str]]


@dataclass(frozen=True)
class Finding:
    """A broken rule.

    Attributes:
        rule: the promise, in a sentence.
        text: the problem, and what to do about it.
    """

    rule: str
    text: str


class WrongType(Exception):
    """A method returns something of a type with which no rule can be looked at."""


def returned(value: Any, kind: type[T], what: str) -> T:
    """What a method has returned, which must be of a type.

    Raises:
        WrongType: it isn't.
    """
    if not isinstance(value, kind):
        found, wanted = type(value).__name__, kind.__name__
        raise WrongType(f"{what} returns {found}: it must return {wanted}.")
    return value


def apply(rules: Iterable[Rule[T]], trial: T, method: Method[Any]) -> list[Finding]:
    """All findings, in order; a rule that raises ends the check, since others would raise too.

    Args:
        rules: the rules; the first line of a rule's docstring is its title.
        trial: the argument of the rules.
        method: the method; a message on an exception names a line of its file.
    """
    findings = []
    for rule in rules:
        title = (rule.__doc__ or "").partition("\n")[0].rstrip(".")
        try:
            findings += [Finding(title, text) for text in rule(trial)]
        except WrongType as error:
            return [*findings, Finding(title, f"{error} Rules after this one were not looked at.")]
        except (Exception, SystemExit) as error:  # whatever a stranger's class raises
            text = f"it raises {type(error).__name__}: {error} ({_where(error, method)})."
            return [*findings, Finding(title, f"{text} Rules after this one were not looked at.")]
    return findings


def _where(error: BaseException, method: Method[Any]) -> str:
    """The last line of the method's file that the error went through."""
    file = getfile(method.cls)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"line {lines[-1]} of {file}" if lines else f"outside {file}"


def settings(method: Method[Any], positional: int) -> Iterator[str]:
    """Problems of hyper-parameters: they must be settable by --set and fit into a record.

    Args:
        method: the method.
        positional: number of arguments that the framework passes by position.
    """
    parameters = signature(method.cls).parameters.values()
    placed = [p for p in parameters if p.kind is not Parameter.KEYWORD_ONLY]
    for parameter in placed[positional:]:
        yield f"{parameter.name!r} can't be set with --set: put it behind a * in the constructor."
    for name, parameter in method.parameters.items():
        if parameter.default is Parameter.empty:
            yield f"hyper-parameter {name!r} has no default: give it the paper's value."
            return
    for name in sorted(set(getattr(method.cls, "later", ())) - set(method.parameters)):
        yield f"'later' names {name!r}, which is no hyper-parameter: correct the name."
    values = method.resolve({})
    try:
        canonical(values)
    except (TypeError, ValueError) as error:
        yield f"a default can't be written to a record ({error}): take numbers and words."
        return
    for name, value in values.items():
        try:
            read_back = method.resolve({name: str(value)})[name] == value
        except UserError as error:
            yield f"the default of {name!r}, {value!r}, is not of its declared type: {error}"
            continue
        if not read_back:
            yield (
                f"the default of {name!r}, {value!r}, becomes another value when it is given with "
                "--set: take a number or a word."
            )


def bad_settings(method: Method[Any]) -> str:
    """The error of `Method.resolve` on a class's ``quick`` settings; empty if there is none."""
    try:
        method.resolve(getattr(method.cls, "quick", {}))
    except UserError as error:
        return str(error)
    return ""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's, NumPy's and Python's global random numbers; restore their states at the end."""
    before = global_states()
    seed_torch(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before["torch"])
        np.random.set_state(before["NumPy"])
        random.setstate(before["Python"])


def seed_torch(seed: int) -> None:
    """Seed torch's global random numbers on the CPU, where methods are checked.

    `torch.manual_seed` takes a hundred times as long: for each kind of GPU that isn't in use it
    notes the call stack.
    """
    torch.default_generator.manual_seed(seed)


def global_states() -> dict[str, Any]:
    """The global random states of torch, NumPy and Python, by name."""
    state = np.random.get_state(legacy=False)
    return {"torch": torch.get_rng_state(), "NumPy": state, "Python": random.getstate()}


def advanced(before: dict[str, Any]) -> list[str]:
    """The names of the libraries whose global random state has changed."""
    now = global_states()
    unchanged = {
        "torch": torch.equal(before["torch"], now["torch"]),
        "NumPy": str(before["NumPy"]["state"]) == str(now["NumPy"]["state"]),
        "Python": before["Python"] == now["Python"],
    }
    return [name for name, equal in unchanged.items() if not equal]


def changes_of_loss(name: str, seen: HashLoss, fresh: HashLoss) -> Iterator[str]:
    """Problems of a loss that a view has held: its state and settings must be as in a new view."""
    kept = fresh.state_dict()
    same = all(torch.equal(value, kept[key]) for key, value in seen.state_dict().items())
    plain = (bool, int, float, str)
    if not same or any(
        isinstance(value, plain) and value != getattr(fresh, key, None)
        for key, value in vars(seen).items()
    ):
        yield f"it changes {name}: work on a copy.deepcopy() of it."


def changed_by_loading(model: HashModel, fresh: HashModel, x: Tensor) -> bool:
    """Whether a model makes other codes than another one with its weights.

    Args:
        model: the model.
        fresh: of the same architecture; gets the weights.
        x: (N,3,S,S) in [0,1].
    """
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        own, loaded = (one.eval()(x) for one in (model, fresh))
    return not torch.allclose(own, loaded, rtol=1e-3, atol=1e-4)
