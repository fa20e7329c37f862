"""``bench new``: what it writes works at once, outside the repository."""

import ast
import os
from pathlib import Path

import pytest
import warm

from hashbackdoor_bench import UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.templates import write_skeleton


@pytest.mark.parametrize("kind", ["attack", "victim", "defense"])
def test_a_skeleton_is_clean_and_passes_its_own_test(kind: str, tmp_path: Path):
    method, test = write_skeleton(kind, f"bright-{kind}", tmp_path / "mine")
    assert (method.name, test.name) == (f"bright_{kind}.py", f"test_bright_{kind}.py")
    for words in (
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
        ["-m", "ruff", "check", "--isolated", method.name, test.name],
        ["-m", "ruff", "format", "--isolated", "--check", method.name, test.name],
    ):
        done = warm.run(tmp_path, *words, cwd=method.parent)
        assert done.returncode == 0, done.stdout + done.stderr
    assert f"class Bright{kind.capitalize()}(" in method.read_text()
    assert main(["check", str(method)]) == 0


@pytest.mark.parametrize("kind", ["attack", "victim", "defense"])
def test_a_skeleton_names_its_paper_formula_and_setting(kind: str, tmp_path: Path):
    method, _ = write_skeleton(kind, "plain", tmp_path)
    text = ast.get_docstring(ast.parse(method.read_text()))
    assert text is not None
    for word in ("Plain: ", "Paper", "https://", " = ", "Differs from the authors"):
        assert word in text
    assert "$" not in method.read_text()


def test_new_says_what_to_type_next(tmp_path: Path, capsys):
    assert main(["new", "attack", "bright-idea", "--dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    path = tmp_path / "bright_idea.py"
    assert f"bench check {path}" in out
    assert f"bench run --plugin {path} --attack bright_idea" in out


@pytest.mark.parametrize("standing", ["bright.py", "test_bright.py"])
def test_no_file_is_overwritten(standing: str, tmp_path: Path, capsys):
    (tmp_path / standing).write_text("mine")
    assert main(["new", "attack", "bright", "--dir", str(tmp_path)]) == 2
    assert "exists already: give another name" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [standing]
    assert (tmp_path / standing).read_text() == "mine"


@pytest.mark.parametrize("name", ["Bright", "2tall", "a b", "_x", "../x", ""])
def test_a_name_that_no_file_can_have_is_refused(name: str, tmp_path: Path):
    with pytest.raises(UserError, match="lower-case letters, digits and _"):
        write_skeleton("attack", name, tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("class", "attack 'class' is a word of Python, .* such as class_attack"),
        ("torch", "attack 'torch' is the name of an installed module, .* such as torch_attack"),
        ("json", "attack 'json' is the name of an installed module"),
    ],
)
def test_a_name_that_python_has_is_refused(name: str, says: str, tmp_path: Path):
    with pytest.raises(UserError, match=says):
        write_skeleton("attack", name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_known_name_is_refused_for_its_kind_only(tmp_path: Path):
    with pytest.raises(UserError, match="attack 'tri_adv' exists: take another name"):
        write_skeleton("attack", "tri-adv", tmp_path)
    assert write_skeleton("victim", "tri-adv", tmp_path)[0].name == "tri_adv.py"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another folder with --dir"):
        write_skeleton("attack", "bright", tmp_path / "file" / "below")


def test_a_package_brings_methods_by_entry_points(tmp_path: Path):
    """As pip would install it: a registered class with a preset, a bare one, and a broken one."""
    method, _ = write_skeleton("attack", "brought", tmp_path)
    text = method.read_text().replace(
        "@ATTACKS.register\n", '@ATTACKS.register(brought_faint={"strength": 0.02})\n'
    )
    method.write_text(text)
    victim, _ = write_skeleton("victim", "fetched", tmp_path)
    victim.write_text(victim.read_text().replace("@VICTIMS.register\n", ""))
    info = tmp_path / "brought-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[hashbackdoor_bench.attacks]\nbrought = brought:Brought\n"
        "brought-faint = brought:Brought\nlost = nowhere:Lost\n"
        "[hashbackdoor_bench.victims]\nfetched = fetched:Fetched\n"
    )
    code = (
        "from hashbackdoor_bench import ATTACKS\nfrom hashbackdoor_bench.cli import main\n"
        "assert ATTACKS['brought-faint'].resolve({}) == {'strength': 0.02}\n"
        "assert main(['check', 'brought', 'brought_faint', 'fetched']) == 0\n"
        "assert main(['check', 'lost']) == 2\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = warm.run(tmp_path, "-c", code, env=environment)
    assert done.returncode == 0, done.stderr
    assert "attack 'lost' of nowhere:Lost fails: ModuleNotFoundError" in done.stderr
