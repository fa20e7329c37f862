"""Who may import whom, read off the import statements."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hashbackdoor_bench"

# From the ground up: a package or module imports what stands on a lower floor, and nothing else.
FLOORS: tuple[set[str], ...] = (
    {"memory", "patience", "text"},
    {"errors", "method_files", "png", "progress"},
    {"plugin_faults", "setting_values"},
    {"files", "locks", "registry", "spec"},
    {"checkpoint", "records"},
    {"api"},
    {"data", "metrics"},
    {"corruptions", "network"},
    {"clusters", "defender", "poisoning", "repairs", "triggers"},
    {"stages"},
    {"checks", "report", "templates"},
    {"sharing"},
    {"search", "suites", "trust"},
    {"cli"},
    {"__main__"},
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# within report: what all share, then the board, whose rules the tables and figures keep too
REPORT = ("", "board", "tables", "figures", "pictures")


@cache
def imported(path: Path) -> set[str]:
    """Full names of what a file imports, anywhere in it but for annotations alone."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        below
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for below in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            # a method in several files: badhash.py, badhash_networks.py, …
            assert path.parent.name in ("attacks", "victims", "defenses"), (
                f"{path}: relative import"
            )
            method = path.stem.partition("_")[0]
            assert str(node.module).partition("_")[0] == method, f"{path}: {node.module}"
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(name: str) -> str | None:
    """The part of the package that an import reaches, '' for the package itself."""
    head, _, rest = name.partition(".")
    if head != "hashbackdoor_bench":
        return None
    part = rest.partition(".")[0]
    known = (PACKAGE / f"{part}.py").exists() or (PACKAGE / part).is_dir()
    return part if known and part else ""


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p.parent != PACKAGE or p.stem != "__init__"]


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path):
    part = part_of(path)
    assert part in FLOOR, f"{part} stands on no floor"
    for name in imported(path):
        other = own(name)
        if other not in (None, "", part):
            assert FLOOR[other] < FLOOR[part], f"{path.name} climbs to {name}"


def public(door: Path) -> set[str]:
    """The names of a package: those of its stub, or what its ``__init__.py`` defines or imports."""
    stub = door / "__init__.pyi"
    body = ast.parse((stub if stub.exists() else door / "__init__.py").read_text()).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_package_is_entered_by_its_front_door(path: Path):
    """What one package takes from another is a name in the other's __init__."""
    for name in imported(path):
        other = own(name)
        if other in (None, "", part_of(path)) or (PACKAGE / f"{other}.py").exists():
            continue
        *doors, taken = name.split(".")[1:]
        door = PACKAGE.joinpath(*doors)
        if not doors:  # the package itself: from hashbackdoor_bench import metrics
            continue
        assert (door / "__init__.py").exists(), f"{path.name} reaches into {name}"
        assert taken in public(door), f"{name} is not public"


def test_no_two_modules_import_each_other():
    modules = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}
    edges = {
        name: {
            known
            for one in imported(path)
            for known in (one.partition(".")[2], one.partition(".")[2].rpartition(".")[0])
            if known in modules and known != name
        }
        for name, path in modules.items()
    }
    assert sum(map(len, edges.values())) > len(modules)
    TopologicalSorter(edges).prepare()  # raises CycleError, which names the circle


def test_within_report_the_board_knows_no_table_and_no_figure():
    seen = 0
    for path in sorted((PACKAGE / "report").rglob("*.py")):
        folder = path.parent.name if path.parent.name in REPORT else ""
        for name in imported(path):
            if name.startswith("hashbackdoor_bench.report."):
                other = name.split(".")[2] if name.split(".")[2] in REPORT else ""
                assert REPORT.index(other) <= REPORT.index(folder), f"{path.name}: {name}"
                seen += other in REPORT[1:]
    assert seen > 0


@pytest.mark.parametrize(
    "path",
    [
        p
        for folder in ("attacks", "victims", "defenses")
        for p in sorted((ROOT / folder).glob("*.py"))
    ],
    ids=str,
)
def test_a_method_imports_the_public_names_of_the_package_only(path: Path):
    import hashbackdoor_bench

    for name in imported(path):
        if name.startswith(("attacks", "victims", "defenses")):
            pytest.fail(f"{path} imports {name}")
        if own(name) is not None:
            assert name.removeprefix("hashbackdoor_bench.") in hashbackdoor_bench.__all__, name


@pytest.mark.parametrize(
    "module",
    [
        "hashbackdoor_bench.cli",
        "hashbackdoor_bench.report.pictures.drawing",
        "hashbackdoor_bench.report.collection",
        "hashbackdoor_bench.report.figures.catalog",
        "hashbackdoor_bench.records",
        "hashbackdoor_bench.suites.suite",
    ],
)
def test_command_line_and_report_need_no_torch(module: str):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Where a method's name stands for something else, and for what.
MEANT = {
    "spec.py": {"ciba", "hashnet", "badhash"},  # the default run, and recipes named after papers
    "metrics/ranking.py": {"ciba", "badhash"},  # the same
    "report/captions.py": {"ciba", "badhash"},  # the same
    # the order that CIBA's paper claims, and its numbers
    "report/board/claimed_order.py": {"tri", "tri_noise", "tri_adv", "ciba"},
    "report/tables/beside_papers.py": {"tri", "tri_noise", "tri_adv", "ciba"},
    "report/tables/layouts.py": {"ciba"},  # the layout of CIBA's tables
    "report/tables/ledger_rows.py": {"ciba", "badhash"},  # conventions named after papers
    "report/tables/published.csv": {"ciba"},  # published numbers, which name the convention
    "cli/table.py": {"ciba"},  # the same layout
}


def test_the_framework_names_no_method():
    from hashbackdoor_bench import ATTACKS, DEFENSES, VICTIMS

    # words that mean something else too
    plain = {"clean", "none", "random", "oracle", "strip", "scan", "jpeg", "identity"}
    methods = {*ATTACKS, *VICTIMS, *DEFENSES} - plain
    found = {}
    for path in PACKAGE.rglob("*"):
        if path.suffix == ".py":
            words = {
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            words |= {word for name in imported(path) for word in name.split(".")}
        elif path.suffix in (".csv", ".txt", ".html", ".js", ".css"):
            words = set(re.findall(r"[a-z0-9_-]+", path.read_text(encoding="utf-8")))
        else:
            continue
        named = {word.replace("-", "_") for word in words} & methods
        found |= {path.relative_to(PACKAGE).as_posix(): named} if named else {}
    assert found == MEANT


def test_every_packaged_folder_is_in_setup_cfg():
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = set(config["options"]["packages"].split())
    folders = {p.parent for p in ROOT.glob("*/**/__init__.py") if ".venv" not in p.parts}
    folders = {p for p in folders if p.relative_to(ROOT).parts[0] in
               {"hashbackdoor_bench", "attacks", "victims", "defenses", "benchmarks"}}  # fmt: skip
    assert len(folders) > 10
    for folder in folders:
        name = ".".join(folder.relative_to(ROOT).parts)
        expected = name if name.startswith("hashbackdoor_bench") else f"hashbackdoor_bench.{name}"
        assert expected in packages, expected
