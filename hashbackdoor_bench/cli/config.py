"""``bench run --config FILE``: options from a TOML file, which the command line overrides."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hashbackdoor_bench.cli.given import PATHS, RUN, fields_given, paths_given, value_given
from hashbackdoor_bench.cli.options import FILE, MOST_THREADS
from hashbackdoor_bench.errors import UserError, check, unknown
from hashbackdoor_bench.registry import METHODS, load_plugin
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.suites import KeyPath, parsed
from hashbackdoor_bench.text import quoted

PLACES: dict[str, Any] = {"device": str, "threads": int, "results_dir": Path, "cache_dir": Path}
SETTINGS = {f"{kind}_settings": kind for kind in METHODS}
WRITE = "[attack_settings], [victim_settings] or [defense_settings]"


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--config`` of a command that takes the fields of a run."""

    @wraps(command)
    def configured(*, config: Path | None, **params: Any) -> Any:
        if config is not None:
            source = click.get_current_context().get_parameter_source
            typed = {name for name in params if source(name) is not ParameterSource.DEFAULT}
            params = merged(read_config(config), params, typed)
        return command(**params)

    return click.option(
        "--config",
        type=FILE,
        help="A TOML file with options of this command, such as bits = 48, and with tables "
        "[attack_settings], [victim_settings] and [defense_settings]. What is typed here wins. Its "
        "paths are relative to the file.",
    )(configured)


def read_config(path: Path) -> dict[str, Any]:
    """The options in a file, by the names of the fields of a run.

    Beside these, ``plugin`` (a path, or a list of paths), ``results_dir``, ``cache_dir``,
    ``device`` and ``threads`` may be given. Relative paths are taken relative to the file, whose
    ``folder`` is among the options that are returned.

    Raises:
        UserError: there is no such file, or it has a mistake.
    """
    if not path.is_file():
        raise UserError(f"--config {path}: give the path of a TOML file that exists.")
    top, folder = parsed(path), path.parent.resolve()
    with KeyPath(path).named():
        for name, value in top.items():
            if name == "set":
                raise UserError(f"set is a key of suites: write {WRITE} here.")
            if isinstance(value, list) and name != "plugin":
                raise UserError(
                    f"{name} is {quoted(value)}: a run has one value; many runs are a suite, see "
                    "bench suite run --help."
                )
            if name not in (known := {*RUN, *PLACES, "plugin"}):
                raise unknown("option", name, known)
        given = {name: value for name, value in top.items() if name in RUN}
        for name in PATHS:
            if given.get(name) and isinstance(given[name], str):
                given[name] = folder / given[name]
        for name in given.keys() & SETTINGS:
            if not isinstance(given[name], dict):
                raise UserError(
                    f"{name} is {quoted(given[name])}: write a table, as in [{name}] with a line "
                    "NAME = VALUE for each hyper-parameter."
                )
        found = fields_given(given)
        for name in found.keys() & SETTINGS:
            _refuse_lists(name, found[name])
        RunSpec(**found).refuse_empty()
        for name, kind in PLACES.items():
            if name in top:
                found[name] = value_given(name, top[name], kind)
                if kind is Path:
                    found[name] = folder / found[name]
        if "threads" in found:
            check("threads", found["threads"], 1, MOST_THREADS)
        if "plugin" in top:
            found["plugin"] = tuple(folder / one for one in paths_given("plugin", top["plugin"]))
    return {**found, "folder": folder}


def _refuse_lists(name: str, settings: tuple[tuple[str, object], ...]) -> None:
    for setting, value in settings:
        if not isinstance(value, str | int | float):
            raise UserError(
                f"{name}.{setting} is {quoted(value)}: write a word, a number, true or false."
            )


def merged(config: Mapping[str, Any], params: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    """The parameters of a command, with what a file says where nothing was typed.

    Hyper-parameters are taken from both, one by one, and the plugins of both are loaded.

    Args:
        config: see `read_config`.
        params: the parameters of the command.
        typed: the names of those that were typed.
    """
    found = dict(params)
    for name, value in config.items():
        if name not in typed and name not in (*SETTINGS, "folder"):
            found[name] = value
    for path in config.get("plugin", ()):  # which says what of its methods is a path
        load_plugin(path)
    texts = _texts(config, found)
    found["settings"] = (*texts, *params["settings"])  # of equal names the last one holds
    found["plugin"] = tuple(dict.fromkeys((*config.get("plugin", ()), *params["plugin"])))
    return found


def _texts(config: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """The hyper-parameters in a file as texts of ``--set``; ``params`` name their methods."""
    for name, kind in SETTINGS.items():
        for setting, given in config.get(name, ()):
            value = METHODS[kind].located(params[kind], setting, given, config["folder"])
            yield f"{kind}.{setting}={value}"
