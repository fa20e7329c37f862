"""What a method's file says of itself, read from its syntax tree: nothing in it is run."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Description:
    """A name that a file registers.

    Attributes:
        summary: the first line of the file; for a preset, the settings that make it.
        published: how papers write the method; empty where the file doesn't say.
        defaults: the hyper-parameters that it has if none are given; those that are neither
            literals nor the file's constants are left out.
        docstring: of the file, which its presets share.
        paths: see `AnyAttack.paths`.
    """

    summary: str
    published: str
    defaults: Mapping[str, object] = field(default_factory=dict)
    docstring: str = ""
    paths: frozenset[str] = frozenset()


def described(path: Path, variable: str) -> dict[str, Description]:
    """The names that a file registers with ``@VARIABLE.register``: its own, and its presets.

    The class may say how papers write them, as literals: ``published = "CSQ"``, or for a class with
    presets ``published: ClassVar = {"dpsh": "DPSH", "dpsh_bn": "DPSH-BN"}``.

    Raises:
        SyntaxError: the file is not Python.
        ValueError: it holds a null byte, or a preset that is no literal.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    docstring = ast.get_docstring(tree) or ""
    summary = docstring.partition("\n")[0]
    found: dict[str, Description] = {}
    constants = {
        line.targets[0].id: line.value
        for line in tree.body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }
    for node in tree.body:
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else []:
            call = decorator.func if isinstance(decorator, ast.Call) else decorator
            if ast.unparse(call) != f"{variable}.register":
                continue
            own = file_name(path)
            summaries, presets = {own: summary}, {own: dict[str, object]()}
            for keyword in decorator.keywords if isinstance(decorator, ast.Call) else []:
                if keyword.arg:
                    preset = presets[keyword.arg] = dict(ast.literal_eval(keyword.value))
                    words = ", ".join(f"{name}={value}" for name, value in preset.items())
                    summaries[keyword.arg] = f"{summary.partition(':')[0]} with {words}"
            names, defaults = _published(node, own), _defaults(node, constants)
            written = _literal(node, "paths") or ()
            paths = frozenset(map(str, written if isinstance(written, tuple) else ()))
            found |= {
                name: Description(
                    text, names.get(name, ""), {**defaults, **presets[name]}, docstring, paths
                )
                for name, text in summaries.items()
            }
    return found


def file_name(path: Path) -> str:
    """What a file's method is called on the command line."""
    return path.stem.replace("-", "_")


def _defaults(node: ast.stmt, constants: Mapping[str, ast.expr]) -> dict[str, object]:
    """The literal defaults of the keyword-only arguments of the constructor.

    Args:
        node: of the class.
        constants: the file's values by name; one may be a default.
    """
    found: dict[str, object] = {}
    for line in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            for argument, default in zip(line.args.kwonlyargs, line.args.kw_defaults, strict=True):
                if isinstance(default, ast.Name):
                    default = constants.get(default.id, default)
                try:
                    found[argument.arg] = ast.literal_eval(default) if default else None
                except ValueError:
                    continue
    return found


def _published(node: ast.stmt, own: str) -> dict[str, str]:
    """The class attribute ``published`` by name; empty where there is none, or it is no literal."""
    value = _literal(node, "published")
    names = value if isinstance(value, dict) else {own: value}
    return {str(name): text for name, text in names.items() if isinstance(text, str)}


def _literal(node: ast.stmt, attribute: str) -> object:
    """The value of a class attribute; None where there is none, or it is no literal."""
    for line in node.body if isinstance(node, ast.ClassDef) else []:
        match line:
            case ast.Assign(targets=[ast.Name(name)], value=assigned):
                pass
            case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as assigned):
                pass
            case _:
                continue
        if name == attribute:
            try:
                found: object = ast.literal_eval(assigned)
            except ValueError:
                return None
            return found
    return None
