import os
import threading
from pathlib import Path

import pytest
from made_records import made, stored

from hashbackdoor_bench import UserError
from hashbackdoor_bench.report import reading
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.reading import read_checked

PARENT = os.getpid()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two processes read, in batches of two, whatever the number of records."""
    monkeypatch.setattr(reading, "FEW", 0)
    monkeypatch.setattr(reading, "BATCH", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(reading.sys, "platform", "linux")
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def files(folder: Path) -> list[Path]:
    """Five records, of which one is damaged and one stands in the wrong place."""
    paths = [stored(folder, made(seed=seed, attack_settings=(("steps", 5),))) for seed in range(5)]
    paths[1].write_text(paths[1].read_text().replace('"map"', '"mop"', 1))
    paths[3] = paths[3].rename(paths[3].with_name("another.json"))
    return paths


def test_several_processes_read_what_one_reads(tmp_path: Path, many: None, monkeypatch):
    wanted = [(path, False) for path in files(tmp_path)]
    pids: list[int] = []
    checked = reading._checked
    monkeypatch.setattr(reading, "_checked", lambda one: pids.append(os.getpid()) or checked(one))
    found = list(read_checked(wanted))
    assert not pids  # nothing was read here
    monkeypatch.setattr(reading, "FEW", 6)
    alone = list(read_checked(wanted))
    assert len(pids) == 5
    kinds = [isinstance(one, UserError) for one in found]
    assert kinds == [False, True, False, True, False]
    for one, other in zip(found, alone, strict=True):
        assert str(one) == str(other) if isinstance(one, UserError) else one == other


def test_a_table_is_the_same_however_many_processes_read(tmp_path: Path, many: None, monkeypatch):
    paths = files(tmp_path)
    places = [paths[3], tmp_path, tmp_path / "fashion-mini"]  # who names a file means it
    found = collect(places)
    monkeypatch.setattr(reading, "FEW", 6)
    alone = collect(places)
    assert len(found.frame) == 4
    assert found.frame.equals(alone.frame)
    assert found.left_out == alone.left_out
    assert len(found.left_out) == 1


def test_records_are_read_though_a_process_was_killed(tmp_path: Path, many: None, monkeypatch):
    wanted = [(path, False) for path in files(tmp_path)]
    alone = [str(one) for one in map(reading._checked, wanted)]
    checked = reading._checked

    def killed(one):
        if one == wanted[2] and os.getpid() != PARENT:
            os._exit(9)
        return checked(one)

    monkeypatch.setattr(reading, "_checked", killed)
    assert [str(one) for one in read_checked(wanted)] == alone


@pytest.mark.parametrize("reason", ["threads", "cores", "platform"])
def test_nothing_is_forked_where_it_is_unsafe_or_in_vain(
    tmp_path: Path, many: None, monkeypatch, reason: str
):
    if reason == "threads":
        monkeypatch.setattr(threading, "active_count", lambda: 2)
    elif reason == "cores":
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    else:
        monkeypatch.setattr(reading.sys, "platform", "darwin")
    monkeypatch.setattr(reading, "ProcessPoolExecutor", None)
    assert len(list(read_checked([(path, False) for path in files(tmp_path)]))) == 5
