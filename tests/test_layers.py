"""Who may import whom, read off the import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hashbackdoor_bench"

# file or folder -> what it may import of ours; a file that is not named may import nothing of ours
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "spec": {"errors"},
    "registry": {"errors"},
    "counting": set(),
    "packing": {"counting"},
    "metrics": {"counting", "packing"},
    "centres": {"api", "errors", "model"},
    "checkpoint": set(),
    "api": {"checkpoint", "progress", "model"},  # model for a type annotation only
    "model": {"api", "errors"},
    "triggers": {"api", "errors"},
    "imperceptibility": {"perceptual", "spectrum"},
    "perceptual": {"errors"},
    "spectrum": set(),
    "data": {"errors", "progress"},
    "augmentation": {"api"},
    "training_set": set(),
    "training": {
        "api", "augmentation", "checkpoint", "errors", "model", "progress", "spec", "training_set",
    },
    "poisoning": {"api", "augmentation", "data", "errors", "training_set"},
    "cache": {"errors", "progress", "spec"},
    "marks": set(),
    "records": {"errors", "spec"},
    "provenance": {"errors"},
    "hasher": {
        "api", "cache", "errors", "model", "progress", "provenance", "registry", "spec", "training",
        "training_set",
    },
    "plan": {
        "api", "cache", "data", "errors", "hasher", "model", "poisoning", "progress", "registry",
        "scores", "spec",
    },
    "rescoring": {"cache", "errors", "plan", "records", "scores"},
    "samples": {"augmentation", "metrics", "pipeline", "poisoning", "report", "scores"},
    "projection": set(),
    "scores": {"cache", "metrics", "projection"},
    "pipeline": {
        "api", "augmentation", "cache", "errors", "hasher", "imperceptibility", "marks", "metrics",
        "plan", "poisoning", "progress", "provenance", "records", "scores", "spec",
    },
    "toml_lines": {"errors"},
    "suite_file": {"data", "errors", "registry", "spec", "toml_lines"},
    "suite": {"spec", "suite_file", "toml_lines"},
    "graph": {"cache", "errors", "plan", "progress", "records", "spec", "suite"},
    "times": {"cache", "graph", "plan", "spec"},
    "sweep": {"cache", "graph", "marks", "records", "spec", "suite", "times"},
    "executors": {
        "cache", "errors", "graph", "pipeline", "plan", "progress", "provenance", "records",
        "registry", "samples", "spec", "sweep",
    },
    "upkeep": {"cache", "errors", "marks", "plan"},
    "console": {"progress"},
    "submission": {
        "api", "cache", "errors", "pipeline", "plan", "poisoning", "provenance", "records",
        "registry",
    },
    "reproduction": {
        "cache", "marks", "pipeline", "plan", "progress", "provenance", "records", "submission",
    },
    "verification": {"cache", "errors", "progress", "records", "report", "rescoring"},
    "skeleton": {"errors", "registry"},
    "checks": {"api", "errors", "model", "poisoning", "registry", "spec"},
    "report": {"errors", "records", "spec", "spectrum", "suite"},
    "cli": {
        "", "cache", "checks", "console", "data", "errors", "executors", "graph", "pipeline",
        "provenance", "records", "registry", "report", "reproduction", "rescoring", "samples",
        "skeleton", "spec", "submission", "suite", "sweep", "times", "upkeep", "verification",
    },
    "__main__": {"cli"},
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            # a method in several files: badhash.py, badhash_networks.py, …
            assert path.parent.name in ("attacks", "victims"), f"{path}: relative import"
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


@pytest.mark.parametrize(
    "path", [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "__init__.py"], ids=str
)
def test_a_file_imports_only_what_its_layer_may(path: Path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    reached = {own(name) for name in imported(path)} - {None, part}
    assert part in ALLOWED, f"{part} has no place among the layers"
    assert reached <= ALLOWED[part], f"{path.name} imports {reached - ALLOWED[part]}"


@pytest.mark.parametrize(
    "path",
    [p for folder in ("attacks", "victims") for p in sorted((ROOT / folder).glob("*.py"))],
    ids=str,
)
def test_a_method_imports_the_public_names_of_the_package_only(path: Path):
    import hashbackdoor_bench

    for name in imported(path):
        if name.startswith(("attacks", "victims")):
            pytest.fail(f"{path} imports {name}")
        if own(name) is not None:
            assert name.removeprefix("hashbackdoor_bench.") in hashbackdoor_bench.__all__, name


@pytest.mark.parametrize(
    "module",
    [
        "hashbackdoor_bench.cli",
        "hashbackdoor_bench.report.pictures",
        "hashbackdoor_bench.report.collection",
        "hashbackdoor_bench.report.figures.catalog",
        "hashbackdoor_bench.records",
        "hashbackdoor_bench.suite",
    ],
)
def test_command_line_and_report_need_no_torch(module: str):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_framework_names_no_method():
    from hashbackdoor_bench import ATTACKS, VICTIMS

    names = {*ATTACKS, *VICTIMS} - {"clean"}
    allowed = {"spec.py"}  # the default run, and recipes named after papers
    for path in PACKAGE.rglob("*.py"):
        words = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if path.name not in allowed and path.parent == PACKAGE:
            # metrics' conventions are named after papers too
            assert not (words & names) - {"ciba", "badhash"}, f"{path.name}: {words & names}"


def test_every_packaged_folder_is_in_setup_cfg():
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = set(config["options"]["packages"].split())
    folders = {p.parent for p in ROOT.glob("*/**/__init__.py") if ".venv" not in p.parts}
    folders = {p for p in folders if p.relative_to(ROOT).parts[0] in
               {"hashbackdoor_bench", "attacks", "victims", "benchmarks"}}  # fmt: skip
    for folder in folders:
        name = ".".join(folder.relative_to(ROOT).parts)
        expected = name if name.startswith("hashbackdoor_bench") else f"hashbackdoor_bench.{name}"
        assert expected in packages, expected
