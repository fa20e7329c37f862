"""Hostile submissions: each is refused in one sentence, in seconds, and in little memory."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_zips import damaged, hostile_layouts, hostile_parts, parts_of, zipped

from hashbackdoor_bench import RunSpec
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import run
from hashbackdoor_bench.trust.submission import pack

RANDOM = 40
LIMIT_SECONDS, LIMIT_BYTES = 60, 2e9

# Reads each zip as `bench reproduce` does, up to the point where the victims would be trained.
READER = """
import contextlib, io, json, sys, time, traceback
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.trust import reproduction

def trained(*args):
    raise UserError("accepted")

reproduction.write_record = trained
for path in sys.stdin.read().splitlines():
    said, began = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main(["reproduce", path, "-q"])
        except BaseException:
            code = traceback.format_exc()
    status = open("/proc/self/status").read()
    memory = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    seconds = time.perf_counter() - began
    print(json.dumps([path, code, said.getvalue(), seconds, memory]), flush=True)
"""


def packed(tiny: Path, folder: Path) -> Path:
    spec = RunSpec(attack="badnets_clean", victim="csq", dataset="lists", lists=str(tiny),
                   root=str(tiny), size=16, top_k=20, bits=12, epochs=1, batch_size=16)  # fmt: skip
    cache = Cache(folder / "cache")
    _, path, _ = run(spec, cache=cache, results=folder / "results", device="cpu")
    assert pack(read_record(path), cache, folder / "good.zip") == 12
    return folder / "good.zip"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip_is_refused_in_a_sentence_in_seconds_and_in_little_memory(
    tiny: Path, tmp_path: Path
):
    good = parts_of(packed(tiny, tmp_path))
    zips = [(name, zipped(parts)) for name, parts in hostile_parts(good)]
    zips += hostile_layouts(good)
    hostile = len(zips)
    assert hostile >= 100
    zips += [
        (f"zips/{number}", damaged(good, random.Random(f"zips/{number}")))
        for number in range(RANDOM)
    ]
    names = {}
    for number, (name, data) in enumerate([("good", zipped(good)), *zips]):
        path = tmp_path / f"{number:03}.zip"
        path.write_bytes(data)
        names[str(path)] = name
    reader = subprocess.run(
        [sys.executable, "-c", READER], input="\n".join(names), capture_output=True, text=True,
        timeout=540, check=True,
    )  # fmt: skip
    results = [json.loads(line) for line in reader.stdout.splitlines()]
    assert len(results) == len(names)
    assert results[0][2] == "bench: accepted\n"
    for path, code, said, seconds, memory in results[1:]:
        name = names[path]
        print(name, code, f"{seconds:.1f} s", f"{memory / 1e6:.0f} MB", said)
        assert code == 2, name
        assert said.startswith("bench: "), name
        assert said.count("\n") == 1, name
        assert len(said) < 1500, name
        assert seconds < LIMIT_SECONDS, name
        assert memory < LIMIT_BYTES, name
        if not name.startswith("zips/"):  # damage may hit what has no meaning, such as a date
            assert said != "bench: accepted\n", name
