"""One door to the methods: a name on the command line is the name of a file, or of a preset in it.

`Registry` reads what the files of a folder say of themselves without running them, so that listing
needs no torch; a method is imported when it is first asked for.
"""

import hashlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from keyword import iskeyword
from pathlib import Path
from typing import Any, Generic, TypeVar

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.method_files import Description, described, file_name
from hashbackdoor_bench.plugin_faults import OURS, OUTSIDE, PLUGIN, plugin_place, spelt
from hashbackdoor_bench.setting_values import read
from hashbackdoor_bench.text import quoted

T = TypeVar("T")


@dataclass(frozen=True)
class Method(Generic[T]):
    """A registered class, or a preset of one: some hyper-parameters set under an own name."""

    kind: str
    name: str
    cls: type[T]
    preset: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, *args: object, **settings: object) -> T:
        """An instance; ``settings`` override the preset, which overrides the class's defaults."""
        return self.cls(*args, **{**self.preset, **settings})

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The hyper-parameters: the keyword-only arguments of the constructor."""
        signature = inspect.signature(self.cls, eval_str=True)
        return {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    @property
    def identity(self) -> dict[str, str | int | None]:
        """What an artifact made by this class depends on; the presets of a class share it.

        Our own files, of one class each, raise ``version``. A class from outside is known by its
        name and its file's hash.
        """
        module = self.cls.__module__
        ours = module.startswith(OURS)
        source = None if ours else inspect.getfile(self.cls)
        return {
            "module": module.rpartition(".")[2] if ours else module,
            "version": getattr(self.cls, "version", 1),
            "sha256": source and hashlib.sha256(Path(source).read_bytes()).hexdigest(),
            **({} if ours else {"class": self.cls.__qualname__}),
        }

    def resolve(self, settings: Mapping[str, object]) -> dict[str, Any]:
        """All hyper-parameters of the method, with ``settings`` read as their declared types.

        Args:
            settings: name -> value; a string is read as the declared type.

        Raises:
            UserError: an unknown name (with the nearest known ones), or a value of another type.
        """
        parameters = self.parameters
        values = {name: parameter.default for name, parameter in parameters.items()}
        values.update(self.preset)
        for name, value in settings.items():
            name = name.replace("-", "_")
            if name not in parameters:
                raise unknown(f"setting of {self.kind} {self.name}", name, parameters)
            annotation = parameters[name].annotation
            values[name] = read(f"{self.kind}.{name}", value, annotation)
        return values

    def recorded(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Those of all ``settings`` that stand in keys and records, see `AnyAttack.later`."""
        later: frozenset[str] = getattr(self.cls, "later", frozenset())
        return {
            name: value
            for name, value in settings.items()
            if name not in later or value != self.parameters[name].default
        }


@dataclass(frozen=True)
class _Home:
    """Where a name comes from, before anything is imported."""

    source: str | EntryPoint
    description: Description


class Registry(Mapping[str, Method[T]]):
    """Names of one kind of method; iterating, `summary` and `published` import nothing.

    Args:
        kind: in the singular, for messages: ``"attack"``.
        package: the package whose files are the methods; also the group of the entry points by
            which other distributions bring theirs.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._loaded: dict[str, Method[T]] = {}
        self._plugins: dict[str, _Home] = {}

    def register(self, cls: type[T] | None = None, **presets: Mapping[str, object]) -> Any:
        """Class decorator: the class takes the name of its file, each preset its keyword.

        ``@ATTACKS.register`` or ``@ATTACKS.register(tri={"perturbation": "none"})``.

        Raises:
            ValueError: a name is taken.
        """
        if cls is None:
            return lambda decorated: self.register(decorated, **presets)
        name = cls.__module__.rpartition(".")[2].removeprefix(PLUGIN)
        if not cls.__module__.startswith(OURS):
            OUTSIDE.add(cls.__module__)
        for key, preset in {name: {}, **presets}.items():
            if key in self._loaded and self._loaded[key].cls is not cls:
                raise ValueError(f"{self.kind} {key!r} is registered twice")
            self._loaded[key] = Method(self.kind, key, cls, preset)
        return cls

    def summary(self, name: str) -> str:
        """The first line of the method's file."""
        return self._home(name).description.summary

    def docstring(self, name: str) -> str:
        """That of the method's file; empty for one of an entry point or of an unknown name."""
        home = {**self._homes, **self._plugins}.get(name.replace("-", "_"))
        return home.description.docstring if home else ""

    def published(self, name: str) -> str:
        """How papers write the method.

        Where its file doesn't say, for a method of an entry point, and for a name that is not known
        here, such as that of a plugin in an old record, it is the name itself.
        """
        home = {**self._homes, **self._plugins}.get(name.replace("-", "_"))
        return (home and home.description.published) or name

    def defaults(self, name: str) -> Mapping[str, object]:
        """The hyper-parameters that the method has if none are given; none of an unknown name."""
        home = {**self._homes, **self._plugins}.get(name.replace("-", "_"))
        return home.description.defaults if home else {}

    def located(self, name: str, setting: str, value: object, folder: Path) -> object:
        """A hyper-parameter that a file in ``folder`` gives; a path in it is relative to the file.

        Args:
            name: the method.
            setting: the hyper-parameter.
            value: its value; the default of a path may be a word that is none.
            folder: the folder of the file.

        Returns:
            The value; a relative path from the working directory on.
        """
        home = {**self._homes, **self._plugins}.get(name.replace("-", "_"))
        setting = setting.replace("-", "_")
        if home is None or setting not in home.description.paths or not isinstance(value, str):
            return value
        if value == home.description.defaults.get(setting) or Path(value).is_absolute():
            return value
        return os.path.relpath(folder / value)

    def module(self, name: str) -> str:
        """The module of the method's file, which its presets share; the name if it is not known."""
        home = {**self._homes, **self._plugins}.get(name.replace("-", "_"))
        return str(home.source) if home else name

    def __getitem__(self, name: str) -> Method[T]:
        name = name.replace("-", "_")
        home = self._home(name)
        if name not in self._loaded:
            if isinstance(home.source, EntryPoint):
                self._load(name, home.source)
            else:
                import_module(home.source)
        return self._loaded[name]

    def _load(self, name: str, point: EntryPoint) -> None:
        """Import what an entry point names; a class that isn't registered gets the point's name."""
        try:
            cls = point.load()
        except (Exception, SystemExit) as error:  # whatever a stranger's package raises
            raise UserError(
                f"{self.kind} {quoted(name)} of {point.value} fails: {spelt(error)}."
            ) from error
        OUTSIDE.add(cls.__module__)
        self._loaded.setdefault(name, Method(self.kind, name, cls))

    def __contains__(self, name: object) -> bool:
        return str(name).replace("-", "_") in {**self._homes, **self._plugins}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({**self._homes, **self._plugins}))

    def __len__(self) -> int:
        return len({**self._homes, **self._plugins})

    def _home(self, name: str) -> _Home:
        homes = {**self._homes, **self._plugins}
        if name.replace("-", "_") not in homes:
            raise unknown(self.kind, name, homes)
        return homes[name.replace("-", "_")]

    def add(self, name: str, module: str, description: Description) -> None:
        """Make known a name that an imported module registered."""
        self._plugins[name] = _Home(module, description)

    @property
    def variable(self) -> str:
        """What the registry is called in a method's file: ``ATTACKS``."""
        return f"{self.kind.upper()}S"

    @cached_property
    def _homes(self) -> dict[str, _Home]:
        homes: dict[str, _Home] = {}
        spec = find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).glob("[!_]*.py")):
                for name, description in described(path, self.variable).items():
                    if name in homes:
                        raise ValueError(f"{self.kind} {name!r} is registered twice")
                    homes[name] = _Home(f"{self.package}.{path.stem}", description)
        for point in entry_points(group=self.package):
            home = _Home(point, Description(f"from {point.value}", ""))
            homes.setdefault(point.name.replace("-", "_"), home)
        return homes


ATTACKS: Registry[Any] = Registry("attack", "hashbackdoor_bench.attacks")
VICTIMS: Registry[Any] = Registry("victim", "hashbackdoor_bench.victims")
DEFENSES: Registry[Any] = Registry("defense", "hashbackdoor_bench.defenses")
_plugin_files: dict[str, tuple[Path, bytes]] = {}  # by module: the file, and what was loaded of it
METHODS = {registry.kind: registry for registry in (ATTACKS, VICTIMS, DEFENSES)}  # by kind


def new_name(registry: Registry[Any], name: str) -> str:
    """The name that a new method's file takes: dashes count as underscores.

    Raises:
        UserError: a file of that name could not be a method, or the name is taken.
    """
    stem = name.replace("-", "_")
    if iskeyword(stem):
        raise UserError(
            f"{registry.kind} {stem!r} is a word of Python, and its class could not be imported: "
            f"take another name, such as {stem}_{registry.kind}."
        )
    if not re.fullmatch("[a-z][a-z0-9_]*", stem):
        raise UserError(
            f"{registry.kind} {quoted(name)}: a name is lower-case letters, digits and _, a letter "
            "first, such as white_square."
        )
    if stem in registry:
        raise UserError(f"{registry.kind} {stem!r} exists: take another name.")
    return stem


def load_plugin(path: Path) -> list[str]:
    """Import a file from outside the project; the names of the methods that it registers.

    A file that was imported before and is unchanged is not imported again.

    Raises:
        UserError: no such file, it isn't Python, it fails, its names are taken, it has none, or it
            has changed.
    """
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--plugin {path}: give the path of a Python file that exists.")
    found, module, file = {}, PLUGIN + file_name(path), path.resolve()
    before, text_before = _plugin_files.get(module, (None, b""))
    for registry in METHODS.values():
        try:
            text = path.read_bytes()
            names = described(path, registry.variable)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
            where = f"line {error.lineno} " if isinstance(error, SyntaxError) else ""
            raise UserError(f"--plugin {path}: {where}is not Python: {error}.") from error
        for name, description in names.items():
            if name in registry and (registry.module(name), file) != (module, before):
                raise UserError(f"--plugin {path}: {registry.kind} {name!r} exists; rename it.")
            found[name] = registry, description
    if not found:
        raise UserError(
            f"--plugin {path}: it registers nothing; put @ATTACKS.register, @VICTIMS.register or "
            "@DEFENSES.register over its class."
        )
    if all(name in registry for name, (registry, _) in found.items()):
        if text_before != text:
            raise UserError(f"--plugin {path}: it has changed since it was loaded; restart Python.")
        return sorted(found)
    spec = spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module] = module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[module])
    except (Exception, SystemExit) as error:  # whatever a stranger's file raises
        _, line = plugin_place(error) or (path, 1)
        raise UserError(f"--plugin {path}: it fails: {spelt(error)}, in line {line}.") from error
    for name, (registry, description) in found.items():
        registry.add(name, module, description)
    _plugin_files[module] = file, text
    return sorted(found)
