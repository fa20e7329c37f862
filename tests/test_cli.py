"""`bench` as a person types it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from made_records import made
from PIL import Image

from hashbackdoor_bench import ATTACKS, VICTIMS
from hashbackdoor_bench.cli import argument_texts, main
from hashbackdoor_bench.cli.result import result_table
from hashbackdoor_bench.records import read_record

QUICK = ["--epochs", "1", "--batch-size", "16", "--bits", "12"]


def run_arguments(tiny: Path, tmp_path: Path, *more: str) -> list[str]:
    where = ["--dataset", "lists", "--size", "16", "--top-k", "20"]
    folders = ["--lists", str(tiny), "--root", str(tiny)]
    places = ["--cache-dir", str(tmp_path / "cache"), "--results-dir", str(tmp_path / "results")]
    ciba = "--attack" not in more or more[more.index("--attack") + 1] in (
        "ciba",
        "tri",
        "tri_noise",
    )
    few = ["--set", "attack.steps=4"] if ciba else []
    return ["run", *where, *folders, *places, *QUICK, *few, *more]


def records(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "results").rglob("*.json"))


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert main(run_arguments(tiny, folder)) == 0
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """The run of `run_arguments` is done in ``tmp_path``: the path of its record."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (path,) = records(tmp_path)
    return path


@pytest.mark.usefixtures("sharp_pictures")
def test_a_run_ends_with_a_record_a_table_and_pictures(tiny, tmp_path, capsys):
    assert main(run_arguments(tiny, tmp_path)) == 0
    out = capsys.readouterr()
    for word in ("t-MAP", "backdoor gain", "PSNR", "record", "pictures"):
        assert word in out.out
    (path,) = records(tmp_path)
    assert str(path) in out.out
    record = read_record(path)
    assert record.spec.attack == "ciba"
    assert record.threat.poisoned == 12  # .6 of 20
    for name in ("poison", "queries", "trigger", "retrieval"):
        with Image.open(path.with_suffix("") / f"{name}.png") as image:
            assert image.width > 500


def test_the_same_command_again_trains_nothing_and_changes_nothing(tiny, tmp_path, done, capsys):
    before = done.read_bytes()
    capsys.readouterr()
    assert main(run_arguments(tiny, tmp_path, "--json")) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    *others, last = [event.get("stage", event["event"]) for event in events]
    assert last == "result"
    assert {*others} <= {"read lists"}  # files that were written just before are hashed again
    assert done.read_bytes() == before


@pytest.mark.usefixtures("done")
def test_another_attack_trains_only_one_more_victim(tiny, tmp_path, capsys):
    capsys.readouterr()
    assert main(run_arguments(tiny, tmp_path, "--attack", "tri", "--json")) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stages = {event["stage"] for event in events if event["event"] == "progress"}
    assert "train poisoned victim" in stages
    assert not stages & {"train surrogate", "train clean victim", "optimise patch"}


def test_the_clean_control_equals_the_clean_victim(tiny, tmp_path):
    assert main(run_arguments(tiny, tmp_path, "--attack", "clean")) == 0
    (path,) = records(tmp_path)
    field = read_record(path).scores.field
    assert field.map == field.map_clean_victim
    assert field.t_map == field.t_map_clean_victim == field.t_map_untriggered
    assert field.backdoor_gain == field.delta_map == 0


@pytest.mark.parametrize("attack", ["badnets", "badnets-clean", "tri_noise"])
def test_attack_names_take_dashes_and_underscores(tiny, tmp_path, attack):
    assert main(run_arguments(tiny, tmp_path, "--attack", attack, "--victim", "csq")) == 0
    assert len(records(tmp_path)) == 1


@pytest.mark.parametrize("victim", [v for v in VICTIMS if VICTIMS[v].cls.trained])
def test_images_with_several_tags_or_none_run_with_every_victim(tagged, tmp_path, victim):
    assert main(run_arguments(tagged, tmp_path, "--victim", victim, "--target", "1")) == 0
    (path,) = records(tmp_path)
    record = read_record(path)
    assert record.protocol.multilabel
    assert record.protocol.unlabelled["train"] == 3
    assert record.protocol.query == 23  # one query has no tag
    assert record.threat.target_images < 20  # the target's tag alone
    assert record.scores.field.map > 0


def test_quiet_says_nothing_but_the_result(tiny, tmp_path, capsys):
    assert main(run_arguments(tiny, tmp_path, "--quiet", "--attack", "tri")) == 0
    assert capsys.readouterr().err == ""


def test_scores_follow_from_the_stored_codes_and_a_changed_record_is_told(tmp_path, done, capsys):
    cache = ["--cache-dir", str(tmp_path / "cache")]
    assert main(["score", str(done), *cache]) == 0
    assert "equal to the record" in capsys.readouterr().out
    values = json.loads(done.read_text())
    values["scores"]["field"]["map"] += 0.01
    done.write_text(json.dumps(values))
    assert main(["score", str(done), *cache]) == 2
    assert "the record says" in capsys.readouterr().out


def test_a_damaged_artifact_is_reported_and_made_again(tiny, tmp_path, done, capsys):
    before = done.read_bytes()
    artifact = next((tmp_path / "cache" / "train").glob("*/tensors.safetensors"))
    artifact.write_bytes(artifact.read_bytes()[:-100])
    scores = next((tmp_path / "cache" / "scores").glob("*/facts.json"))
    scores.write_text(scores.read_text().replace("0.", "1.", 1))
    capsys.readouterr()
    assert main(run_arguments(tiny, tmp_path)) == 0
    assert "damaged" in capsys.readouterr().err
    assert done.read_bytes() == before


@pytest.mark.slow
def test_kill_9_and_the_same_command_give_the_same_scores(tiny, tmp_path):
    whole = tmp_path / "whole"
    command = [sys.executable, "-m", "hashbackdoor_bench"]
    two = ["--epochs", "2"]
    subprocess.run([*command, *run_arguments(tiny, whole, *two)], check=True, capture_output=True)
    killed = tmp_path / "killed"
    for stop in ("optimise patch", "train clean victim", "train poisoned victim", "score"):
        process = subprocess.Popen(
            [*command, *run_arguments(tiny, killed, *two, "--json")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if stop in line:
                os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, stop
        for path in killed.rglob("*.json"):
            json.loads(path.read_text())  # whole, wherever it is
    subprocess.run([*command, *run_arguments(tiny, killed, *two)], check=True, capture_output=True)
    (a,), (b,) = records(whole), records(killed)
    assert read_record(a).scores == read_record(b).scores
    assert read_record(a).key == read_record(b).key
    assert not list((killed / "cache" / "work").iterdir())


@pytest.mark.slow
def test_two_runs_at_once_train_a_shared_clean_victim_once(tiny, tmp_path):
    command = [sys.executable, "-m", "hashbackdoor_bench"]
    both = [
        subprocess.Popen(
            [*command, *run_arguments(tiny, tmp_path, "--attack", attack, "--json")],
            stdout=subprocess.PIPE, text=True,
        )
        for attack in ("ciba", "tri")
    ]  # fmt: skip
    said = [
        [json.loads(line) for line in process.communicate()[0].splitlines()] for process in both
    ]
    trained = [
        any(event.get("stage") == "train clean victim" for event in events) for events in said
    ]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(trained) == 1
    assert len(records(tmp_path)) == 2


# ---- wrong input: one sentence, exit code 2, no traceback ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--attack", "cibba"], "unknown attack 'cibba'.*ciba"),
        (["--victim", "hashnett"], "unknown victim.*hashnet"),
        (["--bits", "0"], "--bits is 0: it must be between 1"),
        (["--bits", "7.5"], "'7.5' is not a valid integer"),
        (["--target", "9"], "class 9 does not exist"),
        (["--target", "dog"], "'dog' is not a class"),
        (["--budget", "1.5"], "--budget is 1.5: it must be between 0 and 1"),
        (["--budget", "nan"], "--budget is nan"),
        (["--lr", "inf"], "--lr is inf"),
        (["--lr", "0"], "--lr is 0"),
        (["--epochs", "0"], "--epochs is 0: it must be at least 1"),
        (["--set", "attack.step_size=nan"], "attack.step_size is 'nan': it must be a number"),
        (["--set", "attack.steps=-5"], "attack.steps is -5: it must be at least 0"),
        (["--backbone", "alexnet"], "'alexnet' can't take images of 16 px"),
        (["--recipe", "ciba"], "random weights.*--pretrained"),
        (["--poison-count", "21"], "21 images are to be poisoned.*has 20"),
        (["--set", "attack.epsilom=8"], "unknown setting of attack ciba 'epsilom'.*epsilon"),
        (["--set", "attack.epsilon=much"], "attack.epsilon is 'much': it must be a number"),
        (["--set", "attack.variant=best"], "must be one of corrected, released"),
        (["--set", "epsilon=8"], "attack.NAME=VALUE"),
        (["--dataset", "fashionmini"], "unknown .*'fashionmini'.*fashion-mini"),
        (["--recipe", "scratch"], "unknown recipe.*scratch32"),
        (["--delivery", "mail"], "unknown --delivery 'mail'"),
        (["--backbone", "cnn23"], "unknown backbone 'cnn23'.*cnn32"),
        (["--weights", "/no/such/file"], "/no/such/file"),
        (["--device", "cuda"], "no GPU here"),
        (["--device", "tpu"], "choose auto, cpu or cuda"),
        (["--surrogate", "csk"], "unknown victim 'csk'.*csq"),
        (["--plugin", "/no/file.py"], "a Python file that exists"),
        (["--precision", "int8"], "unknown --precision"),
        (["--nonsense"], "No such option.*--nonsense"),
        (["--results-dir", "/proc/results"], "/proc/results can't be written.*--results-dir"),
        (["--cache-dir", "/proc/cache"], "/proc/cache can't be written.*--cache-dir"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tiny, tmp_path, capsys, arguments, words):
    import re

    if arguments[0] == "--device" and "cuda" in arguments:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
    extra = [] if "--dataset" not in arguments else arguments
    base = run_arguments(tiny, tmp_path)
    if extra:
        base = [*base[:1], *base[base.index("--cache-dir") :]]
    assert main([*base, *arguments]) == 2
    error = capsys.readouterr().err
    sentences = [line for line in error.splitlines() if not line.startswith(("[", "note:"))]
    assert len(sentences) == 1, error
    assert sentences[0].startswith("bench: ")
    assert re.search(words, sentences[0]), sentences[0]
    assert not records(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_there\n{}", "it fails: ModuleNotFoundError"),
        ("{}\nclass :", "line 4 is not Python"),
        ("x = 1", "it registers nothing"),
    ],
)
def test_a_plugin_that_does_not_work_is_one_sentence(tmp_path, capsys, text, words):
    path = tmp_path / "mine.py"
    path.write_text(text.format("\n@ATTACKS.register\nclass Mine: pass"))
    assert main(["show", "attack", "mine", "--plugin", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_cut_off_picture_is_drawn_again(tiny, tmp_path, done):
    picture = done.with_suffix("") / "poison.png"
    before = picture.read_bytes()
    picture.unlink()
    assert main(run_arguments(tiny, tmp_path)) == 0
    assert picture.read_bytes() == before
    assert not [path for path in picture.parent.iterdir() if path.name.startswith(".")]


def test_an_unknown_kind_to_list_is_one_sentence(capsys):
    assert main(["list", "attack"]) == 2
    assert "attacks" in capsys.readouterr().err


# ---- what there is ----


def test_lists_name_every_method(capsys):

    for what, names in (("attacks", ATTACKS), ("victims", VICTIMS)):
        assert main(["list", what]) == 0
        out = capsys.readouterr().out
        assert [line.split()[0] for line in out.splitlines()] == sorted(names)
    assert main(["list", "datasets"]) == 0
    assert "fashion-mini" in capsys.readouterr().out
    assert main(["list", "recipes"]) == 0
    assert "scratch32" in capsys.readouterr().out


def test_data_is_prepared_verified_and_a_changed_byte_is_told(tiny, tmp_path, capsys):
    where = ["--lists", str(tiny), "--root", str(tiny), "--size", "16"]
    places = [*where, "--cache-dir", str(tmp_path)]
    assert main(["data", "prepare", "lists", *places]) == 0
    assert main(["data", "verify", "lists", *places]) == 0
    assert "as it was prepared" in capsys.readouterr().out
    pixels = next(tmp_path.rglob("train.u8"))
    content = bytearray(pixels.read_bytes())
    content[100] ^= 1
    pixels.write_bytes(content)
    assert main(["data", "verify", "lists", *places]) == 2
    assert "train" in capsys.readouterr().err
    assert main(["data", "prepare", "listz", *places]) == 2
    assert "unknown" in capsys.readouterr().err


def test_missing_images_are_named_in_one_sentence(tiny, tmp_path, capsys):

    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    (copy / "train-3.png").unlink()
    assert main(run_arguments(copy, tmp_path)) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bench:")]
    assert len(error) == 1
    assert "train-3.png" in error[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "train.txt"),
        ("a.png 1 0\nb.png 1 0 1\n", "line 2"),
        ("a.png 1 2\n", "line 1"),
        ("a.png\n", "line 1"),
    ],
)
def test_a_malformed_list_is_told_with_its_line(tiny, tmp_path, capsys, text, words):

    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    (copy / "train.txt").write_text(text)
    assert main(run_arguments(copy, tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_show_prints_formula_paper_parameters_and_threat(capsys):
    assert main(["show", "attack", "tri-adv"]) == 0
    out = capsys.readouterr().out
    for word in (
        "BMVC 2023",
        "argmin_p",
        "*dispersion",
        "0.0",
        "knowledge",
        "surrogate",
        "stamped",
    ):
        assert word in out
    assert main(["show", "victim", "csq"]) == 0
    out = capsys.readouterr().out
    assert "centres" in out
    assert "nothing is trained" not in out
    assert main(["show", "victim", "itq"]) == 0
    assert "\nnothing is trained: add --recipe frozen with --pretr" in capsys.readouterr().out
    assert main(["show", "victim", "dsdh"]) == 0
    out = capsys.readouterr().out
    assert "recipe scratch32_rmsprop, where a data set's default is scratch32" in out
    assert main(["show", "recipe", "ciba"]) == 0
    assert "0.0001" in capsys.readouterr().out


def test_every_hyper_parameter_is_described():
    import inspect

    from hashbackdoor_bench import ATTACKS, VICTIMS

    for registry in (ATTACKS, VICTIMS):
        for name in registry:
            method = registry[name]
            texts = argument_texts(inspect.getdoc(method.cls) or "")
            assert set(method.parameters) <= set(texts), name


SQUARE = '''"""White square: the whitest of squares."""
import torch
from hashbackdoor_bench import ATTACKS, Attack, Patch, ThreatModel


@ATTACKS.register
class WhiteSquare(Attack):
    """A square."""

    threat = ThreatModel(label="clean", knowledge="none", trigger="patch")
    backdoor = Patch

    def craft(self, view):
        white = torch.full((3, 5, 5), 255, dtype=torch.uint8)
        return Patch(view.index, view.images[view.index], view.labels[view.index], patch=white)
'''


def test_an_attack_of_ones_own_runs_from_a_file_and_an_edit_makes_it_again(tiny, tmp_path):
    """In processes of their own, as a person would."""
    path = tmp_path / "white-square.py"
    words = run_arguments(
        tiny, tmp_path, "--plugin", str(path), "--attack", "white-square", "--quiet"
    )
    for colour in ("255", "0"):
        path.write_text(SQUARE.replace("255", colour))
        done = warm.run(tmp_path, "-m", "hashbackdoor_bench", *words)
        assert done.returncode == 0, done.stderr
    first, second = map(read_record, records(tmp_path))
    assert first.spec.attack == "white_square"
    assert first.artifacts["backdoor"] != second.artifacts["backdoor"]
    assert first.artifacts["clean victim"] == second.artifacts["clean victim"]


def test_listing_and_the_result_write_names_as_papers_do(capsys):
    assert main(["list", "attacks"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["tri_noise"].split()[:3] == ["tri_noise", "Tri+Noise", "CIBA"]
    starts = {line.index(ATTACKS.published(name), len(name)) for name, line in lines.items()}
    assert len(starts) == 1  # one column
    title = str(result_table(made(attack="tri_adv", victim="dpsh_bn")).title)
    assert title.startswith("Tri+Adv on DPSH-BN, 48 bits, fashion-mini, target 'Coat'")
    assert main(["show", "attack", "tri-noise"]) == 0
    assert "\nattack tri_noise, in tables Tri+Noise\n" in capsys.readouterr().out
