import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from hashbackdoor_bench import ATTACKS, DEFENSES, VICTIMS, UserError
from hashbackdoor_bench.method_files import described
from hashbackdoor_bench.registry import Registry, load_plugin, read


def test_names_are_files_and_presets_and_dashes_count_as_underscores():
    assert {"clean", "badnets", "badnets_clean", "tri", "tri_noise", "tri_adv", "ciba"} <= set(
        ATTACKS
    )
    assert {"dpsh", "hashnet", "csq", "dhta_l2"} <= set(VICTIMS)
    assert ATTACKS["tri-adv"].cls is ATTACKS["ciba"].cls
    assert "tri-adv" in ATTACKS
    assert "tri-adverb" not in ATTACKS


def test_listing_imports_no_method_and_no_torch():
    code = (
        "import sys\nfrom hashbackdoor_bench.registry import ATTACKS\n"
        "assert ATTACKS.summary('ciba') and len(ATTACKS) > 3\n"
        "assert ATTACKS.published('tri_noise') == 'Tri+Noise'\n"
        "sys.exit('torch' in sys.modules or 'hashbackdoor_bench.attacks.ciba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_gives_the_near_ones():
    with pytest.raises(UserError, match=r"unknown attack 'cibaa': did you mean ciba"):
        ATTACKS["cibaa"]
    with pytest.raises(UserError, match=r"unknown victim 'zzzz': choose one of csq, dch"):
        VICTIMS["zzzz"]


@pytest.mark.parametrize("registry", [ATTACKS, VICTIMS, DEFENSES], ids=lambda one: one.kind)
def test_the_defaults_that_a_file_states_are_those_of_its_method(registry: Registry):
    for name in registry:
        assert dict(registry.defaults(name)) == registry[name].resolve({})
    assert registry.defaults("a-plugin-of-last-year") == {}


def test_a_preset_is_overridden_by_a_setting_and_overrides_a_default():
    tri = ATTACKS["tri"]
    assert tri.resolve({})["perturbation"] == "none"
    assert tri.resolve({"perturbation": "noise"})["perturbation"] == "noise"
    assert ATTACKS["ciba"].resolve({})["perturbation"] == "confusing"


def test_a_name_is_written_as_in_papers_and_as_itself_where_nothing_says_how():
    assert [VICTIMS.published(name) for name in ("csq", "dpsh", "dpsh-bn")] == [
        "CSQ", "DPSH", "DPSH-BN"
    ]  # fmt: skip
    assert ATTACKS.published("tri_adv") == "Tri+Adv"
    assert ATTACKS.published("a-plugin-of-last-year") == "a-plugin-of-last-year"


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("published = 'Own'", {"mine": "Own", "mine_soft": ""}),
        ("published: ClassVar = {'mine_soft': 'Own-S'}", {"mine": "", "mine_soft": "Own-S"}),
        ("published: str = 'Own'", {"mine": "Own", "mine_soft": ""}),
        ("published: str", {"mine": "", "mine_soft": ""}),
        ("published = NAME", {"mine": "", "mine_soft": ""}),
        ("published = 3", {"mine": "", "mine_soft": ""}),
        ("other = 'Own'", {"mine": "", "mine_soft": ""}),
    ],
)
def test_a_published_name_is_a_literal_of_the_class(tmp_path: Path, body, names):
    path = tmp_path / "mine.py"
    head = '"""Mine: an attack."""\n@ATTACKS.register(mine_soft={"k": 1})\nclass Mine:\n'
    path.write_text(f"{head}    {body}\nclass Other:\n    published = 'Other'\n")
    found = described(path, "ATTACKS")
    assert {name: one.published for name, one in found.items()} == names
    assert found["mine_soft"].summary == "Mine with k=1"
    assert described(path, "VICTIMS") == {}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("8", float, 8.0), ("8", int, 8), ("8.0", int, 8), ("1e3", int, 1000), ("yes", bool, True),
        ("false", bool, False), ("none", int | None, None), ("3", int | None, 3),
        ("a", Literal["a", "b"], "a"), ("x", str, "x"), (None, float | None, None),
    ],
)  # fmt: skip
def test_text_is_read_as_the_declared_type(text, kind, value):
    found = read("s", text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("8.5", int, "a whole number"), ("x", float, "a number"), ("2", bool, "true or false"),
        ("c", Literal["a", "b"], "one of a, b"), ("x", int | None, "a whole number or none"),
        (True, float, "a number"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_says_what_is_allowed(text, kind, words):
    with pytest.raises(UserError, match=words):
        read("attack.s", text, kind)


PLUGIN = '''"""Mine: an attack."""
from hashbackdoor_bench import ATTACKS
from hashbackdoor_bench.registry import Registry
REG = ATTACKS
'''


def test_a_plugin_that_registers_nothing_is_told(tmp_path: Path):
    path = tmp_path / "nothing.py"
    path.write_text(PLUGIN)
    with pytest.raises(UserError, match=r"it registers nothing; put @ATTACKS.register"):
        load_plugin(path)


def test_a_plugin_must_not_take_a_known_name(tmp_path: Path):
    path = tmp_path / "ciba.py"
    path.write_text("@ATTACKS.register\nclass Ciba: pass\n")
    with pytest.raises(UserError, match="'ciba' exists; rename"):
        load_plugin(path)


def test_a_plugin_brings_its_published_name(tmp_path: Path):
    code = (
        "from pathlib import Path\n"
        "from hashbackdoor_bench.registry import ATTACKS, load_plugin\n"
        "assert load_plugin(Path('white_dot.py')) == ['white_dot']\n"
        "assert ATTACKS.published('white-dot') == 'WhiteDot'"
    )
    text = "from hashbackdoor_bench import ATTACKS\n"
    text += "@ATTACKS.register\nclass WhiteDot:\n    published = 'WhiteDot'\n"
    (tmp_path / "white_dot.py").write_text(text)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_plugin_that_is_not_python_is_told_with_its_line(tmp_path: Path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\nclass :\n")
    with pytest.raises(UserError, match="line 2 is not Python"):
        load_plugin(path)


def test_a_name_is_not_registered_twice():
    registry: Registry[object] = Registry("attack", "hashbackdoor_bench.attacks")
    registry.register(type("A", (), {"__module__": "x.same"}))
    with pytest.raises(ValueError, match="'same' is registered twice"):
        registry.register(type("B", (), {"__module__": "y.same"}))


def test_entry_points_bring_methods_and_two_of_one_file_are_told_apart_in_keys(tmp_path: Path):
    """A distribution that declares them, as pip would install it."""
    (tmp_path / "strange.py").write_text(
        '"""Strange."""\nclass Strange:\n    def __init__(self, *, x: int = 3): self.x = x\n'
        "class Stranger(Strange): pass\n"
    )
    info = tmp_path / "strange-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[hashbackdoor_bench.attacks]\nstrange = strange:Strange\nstranger = strange:Stranger\n"
    )
    code = (
        "from hashbackdoor_bench import ATTACKS\n"
        "assert 'strange' in ATTACKS and ATTACKS['strange'](x=4).x == 4\n"
        "assert ATTACKS['strange'].resolve({}) == {'x': 3}\n"
        "assert ATTACKS.published('strange') == 'strange'\n"
        "first, second = (ATTACKS[name].identity for name in ('strange', 'stranger'))\n"
        "assert first != second == ATTACKS['stranger'].identity\n"
        "assert first['sha256'] == second['sha256'] and len(first['sha256']) == 64"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(tmp_path), "PATH": ""}
    )
