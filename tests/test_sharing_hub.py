"""Pushing to and pulling from a hub: a server on this machine that speaks the endpoints it needs.

The real hub was not tried: it stores large files elsewhere (LFS, Xet), which its client hides.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from made_records import made, stored
from msgspec.structs import replace
from quiet_server import QuietServer

from hashbackdoor_bench import UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.patience import within
from hashbackdoor_bench.records import record_key
from hashbackdoor_bench.sharing import listing_from, push, source_of
from hashbackdoor_bench.sharing.hub import Repository
from hashbackdoor_bench.sharing.sources import Folder
from hashbackdoor_bench.stages.cache import Cache

NAME = "team/poison"


class Hub:
    """A hub with one data set, whose commits are numbered.

    Attributes:
        commits: the files of each commit.
        seen: method and path of each request.
        lies: content that is given instead of the committed one, by path.
    """

    def __init__(self) -> None:
        self.commits: list[dict[str, bytes]] = [{".gitattributes": b""}]
        self.seen: list[str] = []
        self.lies: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.seen.append(f"{self.command} {self.path}")
                words = self.path.partition("?")[0].split("/")[1:]
                if words[:4] == ["api", "datasets", *NAME.split("/")]:
                    if len(words) > 5 and words[5] not in ("main", hub.sha):
                        self.answer({"error": "no"}, 404, {"X-Error-Code": "RevisionNotFound"})
                        return
                    files = [{"rfilename": path} for path in hub.commits[-1]]
                    self.answer({"id": NAME, "sha": hub.sha, "siblings": files, "private": False})
                elif words[0] == "datasets" and "/".join(words[1:3]) == NAME:
                    self.file(hub.commits[int(words[4], 16) - 1], "/".join(words[5:]))
                else:
                    self.answer({"error": "no"}, 404, {"X-Error-Code": "RepoNotFound"})

            do_HEAD = do_GET

            def do_POST(self) -> None:
                hub.seen.append(f"POST {self.path}")
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if "/preupload/" in self.path:
                    asked = [one["path"] for one in json.loads(body)["files"]]
                    self.answer({"files": [
                        {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                        for path in asked
                    ]})  # fmt: skip
                    return
                lines = [json.loads(line) for line in body.splitlines()]
                (first, *others) = lines
                if first["value"].get("parentCommit", hub.sha) != hub.sha:
                    self.answer({"error": "somebody was faster"}, 412)
                    return
                fresh = dict(hub.commits[-1])
                for one in others:
                    assert one["key"] == "file"
                    fresh[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
                hub.commits.append(fresh)
                address = f"{hub.address}/datasets/{NAME}/commit/{hub.sha}"
                self.answer({"success": True, "commitOid": hub.sha, "commitUrl": address,
                             "pullRequestUrl": None})  # fmt: skip

            def file(self, files: dict[str, bytes], path: str) -> None:
                if path not in files:
                    self.answer({"error": "no"}, 404, {"X-Error-Code": "EntryNotFound"})
                    return
                content = hub.lies.get(path, files[path])
                self.answer(content, 200, {
                    "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": hub.sha,
                })  # fmt: skip

            def answer(
                self, content: Any, status: int = 200, headers: dict[str, str] | None = None
            ) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *words: object) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def sha(self) -> str:
        return f"{len(self.commits):040x}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    started = Hub()
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with a record, whose clean victim is in the cache."""
    cache = Cache(tmp_path / "cache")
    artifact = cache.make("train", {}, lambda work: ({"x": torch.arange(100)}, {}))
    record = made(attack="badnets", knowledge="none")
    keys = {"clean victim": artifact.key}
    record = replace(record, artifacts=keys, key=record_key(record.spec, keys))
    stored(tmp_path / "quick", record)
    return tmp_path / "quick"


@pytest.fixture
def bench(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., str]:
    """A function that runs a command against the hub, and returns what it prints."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("no_proxy", "*")

    def run(here: Path, *words: str, code: int = 0) -> str:
        begun = time.monotonic()
        assert main([*words, "-q", "--cache-dir", str(here / "cache")]) == code
        assert time.monotonic() - begun < 20
        streams = capsys.readouterr()
        return streams.out + streams.err

    return run


def test_a_repository_is_pushed_to_and_pulled_from(bench, hub: Hub, results, tmp_path: Path):
    out = bench(tmp_path, "push", str(results), "--to", f"hf:{NAME}", "--with", "clean-victims")
    assert "1 artifacts copied" in out
    there = hub.commits[-1]
    listing = json.loads(there["sharing.json"])
    assert {one["path"] for one in listing["files"]} == there.keys() - {
        "sharing.json", ".gitattributes",
    }  # fmt: skip
    assert len(hub.commits) == 2
    here = tmp_path / "other"
    words = ("pull", f"hf:{NAME}", "--results-dir", str(here / "runs"))
    assert "1 artifacts came" in bench(here, *words)
    assert [p.read_bytes() for p in (here / "runs").rglob("*.json")] == [
        p.read_bytes() for p in results.rglob("*.json")
    ]
    (artifact,) = Cache(here / "cache").stored()
    assert Cache(here / "cache").find(*artifact[:2])
    assert not list((here / "cache").rglob(".hub"))
    # a second record is added to what is there
    stored(results, made(attack="badnets", knowledge="none", seed=1))
    bench(tmp_path, "push", str(results), "--to", f"hf:{NAME}", "--with", "none")
    assert len(hub.commits) == 3
    assert set(there) < set(hub.commits[-1])
    changed = {path for path, content in there.items() if hub.commits[-1][path] != content}
    assert changed == {"sharing.json"}
    # the first commit is still what it was
    bench(tmp_path / "c", "pull", f"hf:{NAME}@{'0' * 39}2", "--dry-run", code=2)


def test_what_a_hub_gives_is_not_believed(bench, hub: Hub, results: Path, tmp_path: Path):
    bench(tmp_path, "push", str(results), "--to", f"hf:{NAME}", "--with", "clean-victims")
    (path,) = (path for path in hub.commits[-1] if path.endswith(".safetensors"))
    good = hub.commits[-1][path]
    here = tmp_path / "other"
    hub.lies[path] = good + b"\0"
    words = ("pull", f"hf:{NAME}", "--only", "artifacts")
    assert f"{len(good) + 1} bytes and not {len(good)}" in bench(here, *words, code=2)
    assert not [one for one in hub.seen if one == f"GET /datasets/{NAME}/resolve/{hub.sha}/{path}"]
    hub.lies[path] = good[:-1] + b"\x7f"
    assert "its SHA-256 is not the one" in bench(here, *words, code=2)
    assert not list((here / "cache").rglob("*.safetensors"))
    hub.lies.clear()
    assert "1 artifacts came" in bench(here, *words)


def test_a_repository_that_is_not_there_is_one_sentence(bench, tmp_path: Path):
    told = bench(tmp_path, "pull", "hf:team/other", code=2)
    assert "there is no such data set on the hub" in told
    assert "hf auth login" in told
    assert len(told.splitlines()) == 1
    told = bench(tmp_path, "pull", f"hf:{NAME}", code=2)  # nothing was pushed there
    assert "can't be used" in told
    assert len(told.splitlines()) == 1


def test_a_hub_that_is_not_there_is_one_sentence(bench, hub: Hub, tmp_path: Path):
    hub.server.shutdown()
    hub.server.server_close()
    told = bench(tmp_path, "pull", f"hf:{NAME}", code=2)
    assert "can't be used" in told
    assert len(told.splitlines()) == 1


def test_names_of_repositories_are_read():
    assert source_of("hf:team/poison@v1") == Repository("team/poison", "v1")
    assert source_of("hf:team/poison") == Repository("team/poison")
    for wrong in ("hf:", "hf:x", "hf:a/b/c", "hf:a b/c", "hf:@x"):
        with pytest.raises(UserError, match="names no repository"):
            source_of(wrong)


def test_what_never_answers_is_left():
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        within(0.05, lambda: threading.Event().wait(5))
    assert isinstance(within(5, lambda: {}["x"]), KeyError)
    assert within(5, lambda: 3) == 3


def test_folders_and_repositories_have_one_listing(tmp_path: Path, results: Path):
    push([results], tmp_path / "a", Cache(tmp_path / "cache"), ["all"])
    push([results], tmp_path / "b", Cache(tmp_path / "cache"), ["all"])
    assert listing_from(Folder(tmp_path / "a")) == listing_from(Folder(tmp_path / "b"))
