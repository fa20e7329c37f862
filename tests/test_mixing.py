"""No mean, column or comparison holds runs that differ in more than their draws."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_records import made, stored
from msgspec.structs import replace

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.records import Numerics, Record, record_key, with_checksum
from hashbackdoor_bench.report.board.boards import boards
from hashbackdoor_bench.report.board.rivals import rivals
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.mixing import (
    FREE,
    SAME_ATTACK,
    SAME_DEFENSE,
    SAME_VICTIM,
    refuse_mixed,
    refuse_mixed_victims,
)
from hashbackdoor_bench.report.tables.layouts import tables

# Another value of each field; a field that is new stands here before anything may average over it.
OTHER: dict[str, Any] = {
    "attack": "tri", "attack_settings": (("epsilon", 2),), "budget": 0.3, "poison_count": 5,
    "delivery": "stamped", "surrogate": "csq", "surrogate_backbone": "resnet18",
    "surrogate_bits": 16, "surrogate_recipe": "ciba", "surrogate_pretrained": True, "aware": "jpeg",
    "dataset": "folder", "size": 96, "backbone": "resnet18", "pretrained": True, "weights": "b.pth",
    "weights_by_order": True, "recipe": "ciba", "epochs": 3, "batch_size": 8, "lr": 1e-3,
    "augment": "crop", "pool": "max", "hidden": 64, "victim_settings": (("alpha", 0.1),),
    "defense": "clp", "defense_settings": (("u", 2.0),), "operating_point": "tuned",
    "clean_share": 0.2,
}  # fmt: skip
CPU = Numerics(device="cpu AVX512", threads=1, precision="float32", tf32=None, torch="2.11")


def frame(folder: Path, *records: Record) -> pd.DataFrame:
    for record in records:
        stored(folder, record)
    found = collect([folder])
    assert not found.left_out
    return found.frame.assign(label="x", suite="mine")


def on_cpu(victim: str, **spec: Any) -> Record:
    """A record whose clean victim has that key."""
    record = made(**({"dataset": "lists", "weights": "a.pth", "precision": "float32"} | spec))
    keys = {**record.artifacts, "clean victim": victim}
    numerics = replace(CPU, precision=record.spec.precision)
    key = record_key(record.spec, keys)
    return with_checksum(replace(record, key=key, artifacts=keys, numerics=numerics))


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(RunSpec) if field.name not in FREE]
)
def test_runs_that_differ_in_any_other_field_are_refused(name: str):
    pair = [made(dataset="lists"), made(**{"dataset": "lists", "seed": 1, name: OTHER[name]})]
    data = pd.DataFrame({"record": pair})
    with pytest.raises(UserError, match=rf"x: there are runs with {name}=.*--where '{name}="):
        refuse_mixed(data, "x", (*SAME_ATTACK, *SAME_VICTIM, *SAME_DEFENSE))


@pytest.mark.parametrize("name", ["size", "weights", "weights_by_order"])
@pytest.mark.parametrize("layout", ["ciba", "pairs", "leaderboard"])
def test_two_sizes_and_two_files_of_weights_stand_in_no_table_together(tmp_path, name, layout):
    both: dict[str, Any] = {"dataset": "lists", "weights": "a.pth"}
    records = [made(**both), made(**(both | {"seed": 1, name: OTHER[name]}))]
    with pytest.raises(UserError, match=f"{name}="):
        tables(frame(tmp_path, *records), layout)


def test_the_size_that_the_data_has_is_the_same_whether_asked_for_or_not():
    data = pd.DataFrame({"record": [made(dataset="lists"), made(dataset="lists", size=224)]})
    refuse_mixed(data, "x", SAME_VICTIM)


def with_key(sha256: str, **spec: Any) -> Record:
    """A record of an attack with a file of that content."""
    settings = {"attack": "blended", "attack_settings": (("key", "key.png"),)}
    record = made(**(settings | spec))
    inputs = {"key": "key.png", "key_sha256": sha256}
    return replace(record, params=replace(record.params, attack=inputs))


def test_one_name_of_two_files_of_an_attack_is_two_attacks(tmp_path):
    data = frame(tmp_path, with_key("ab"), with_key("cd", seed=1))
    with pytest.raises(UserError, match=r'attack_inputs=\{"key_sha256":"(ab|cd)"\}'):
        tables(data, "pairs")
    (board,) = boards(data, ["mine"])
    assert [one.why for one in board.entries] == ["its runs differ in key_sha256"]


def test_the_settings_that_a_surrogate_or_a_recipe_had_are_compared(tmp_path):
    for number, part in enumerate(("surrogate", "recipe")):
        one, two = made(), made(seed=1)
        two = replace(two, params=replace(two.params, **{part: {"weight_decay": 0.1}}))
        with pytest.raises(UserError, match=f"{part}_settings="):
            tables(frame(tmp_path / str(number), one, two), "pairs")


def test_a_file_of_weights_is_known_by_the_key_of_the_clean_victim(tmp_path):
    data = frame(tmp_path, on_cpu("aa"), on_cpu("bb", attack="tri"))
    with pytest.raises(UserError, match=r"two networks .* two files of --weights"):
        refuse_mixed_victims(data, "x")
    same = frame(tmp_path / "same", on_cpu("aa"), on_cpu("aa", attack="tri"), on_cpu("bb", seed=1))
    refuse_mixed_victims(same, "x")


def test_a_file_of_weights_is_known_by_its_hash_where_no_seed_is_common(tmp_path):
    def of(weights: str, seed: int) -> Record:
        record = on_cpu(f"{weights}{seed}", seed=seed)
        return with_checksum(replace(record, params=replace(record.params, weights=weights)))

    data = frame(tmp_path, of("aa", 0), of("bb", 1))
    with pytest.raises(UserError, match="weights_hash=aa and with weights_hash=bb"):
        refuse_mixed_victims(data, "x")
    older = on_cpu("cc", seed=2)  # holds no hash
    refuse_mixed_victims(frame(tmp_path / "same", of("aa", 0), of("aa", 1), older), "x")


def test_two_precisions_on_one_device_were_chosen_and_are_refused(tmp_path):
    data = frame(tmp_path, on_cpu("aa"), on_cpu("bb", seed=1, precision="bfloat16"))
    with pytest.raises(UserError, match="x, cpu AVX512: there are runs with precision="):
        refuse_mixed_victims(data, "x")
    numerics = {one.key: one.numerics for one in data["record"]}
    moved = [
        replace(one, numerics=replace(numerics[one.key], device=f"machine {number}"))
        for number, one in enumerate(data["record"])
    ]
    refuse_mixed_victims(data.assign(record=moved), "x")


def test_an_attack_is_not_compared_on_another_network_of_the_same_name(tmp_path):
    mine, theirs = on_cpu("aa"), on_cpu("bb", attack="tri")
    data = frame(tmp_path, mine, theirs).assign(label=lambda one: one["attack"])
    kept, told = rivals(data, "mine", [mine.spec], {mine.key})
    assert set(kept["key"]) == {mine.key}
    assert "their clean hashnet is another network" in " ".join(told)
