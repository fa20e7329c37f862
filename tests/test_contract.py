"""What every method promises, run over the registries: a new file is tested before its own tests.

The rules are `hashbackdoor_bench.checks`, which `bench check` runs on a stranger's file.
"""

from typing import Any

import pytest

from hashbackdoor_bench import ATTACKS, DEFENSES, VICTIMS
from hashbackdoor_bench.checks import check_attack, check_defense, check_victim


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_keeps_what_every_attack_promises(name: str):
    assert check_attack(ATTACKS[name]) == []


@pytest.mark.parametrize("name", list(VICTIMS))
def test_a_victim_keeps_what_every_victim_promises(name: str):
    assert check_victim(VICTIMS[name]) == []


@pytest.mark.parametrize("name", list(DEFENSES))
def test_a_defense_keeps_what_every_defense_promises(name: str):
    assert check_defense(DEFENSES[name]) == []


@pytest.mark.parametrize(
    "registry", [ATTACKS, VICTIMS, DEFENSES], ids=lambda registry: registry.kind
)
def test_every_file_begins_with_a_sentence(registry: Any):
    assert all(registry.summary(name) for name in registry)


@pytest.mark.parametrize(
    "registry", [ATTACKS, VICTIMS, DEFENSES], ids=lambda registry: registry.kind
)
def test_every_method_says_how_papers_write_it_and_no_two_are_written_alike(registry: Any):
    published = {name: registry.published(name) for name in registry}
    for name, written in published.items():
        said = registry[name].cls.published
        assert written == (said if isinstance(said, str) else said[name])
        assert written
    assert len(set(published.values())) == len(published)
