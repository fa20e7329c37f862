"""Pulling from web servers on this machine: a plain one, and such as are broken or hostile."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from hashbackdoor_bench import UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.sharing import listing_from, pull, web
from hashbackdoor_bench.sharing.listing import list_folder, write_listing
from hashbackdoor_bench.sharing.web import Web
from hashbackdoor_bench.stages.cache import Cache

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers have less time, and no proxy of this machine stands between."""
    monkeypatch.setattr(web, "PATIENCE", 0.5)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A shared folder with an artifact of 80 kB."""
    tensors = {"x": torch.arange(10_000)}
    Cache(tmp_path / "made").make("codes", {}, lambda work: (tensors, {}))
    (tmp_path / "share/artifacts").mkdir(parents=True)
    (tmp_path / "made/codes").rename(tmp_path / "share/artifacts/codes")
    write_listing(tmp_path / "share", list_folder(tmp_path / "share"))
    return tmp_path / "share"


class Log:
    """The requests that a server got: path and range."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []


class Server(ThreadingHTTPServer):
    """Says nothing on standard error, where a later test may look, when a client has left it."""

    def handle_error(self, *words: object) -> None:
        pass


@pytest.fixture
def serve(shared: Path) -> Iterator[Callable[..., str]]:
    """Start a server; returns its address."""
    servers = []

    def start(answer: Answer | None = None, ranges: bool = False, log: Log | None = None) -> str:
        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if log is not None:
                    log.seen.append((self.path, self.headers.get("Range")))
                if answer is not None and self.path.endswith("tensors.safetensors"):
                    answer(self)
                elif ranges and "Range" in self.headers:
                    part(self, shared)
                else:
                    super().do_GET()

            def log_message(self, *words: object) -> None:
                pass

        server = Server(("127.0.0.1", 0), partial(Handler, directory=str(shared)))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def part(handler: BaseHTTPRequestHandler, shared: Path) -> None:
    """Answer a request for the rest of a file."""
    content = (shared / handler.path[1:]).read_bytes()
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        handler.send_error(416)
        return
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    handler.wfile.write(content[start:])


def head(handler: BaseHTTPRequestHandler, length: int | None, status: int = 200) -> None:
    handler.send_response(status)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


def pulled(address: str, here: Path, capsys) -> tuple[int, str]:
    words = ["pull", address, "--cache-dir", str(here / "c"), "--results-dir", str(here / "r")]
    begun = time.monotonic()
    code = main([*words, "-q"])
    assert time.monotonic() - begun < 8
    streams = capsys.readouterr()
    if code:
        assert len(streams.err.splitlines()) == 1
        assert not list(Cache(here / "c").stored())
    return code, streams.err


def tensors_of(shared: Path) -> tuple[str, bytes]:
    (path,) = shared.rglob("tensors.safetensors")
    return path.relative_to(shared).as_posix(), path.read_bytes()


@pytest.mark.parametrize("end", ["", "/", "/sharing.json", "/?token=1", "#x"])
def test_a_plain_server_of_the_folder_is_enough(serve, tmp_path: Path, capsys, end: str):
    assert pulled(serve() + end, tmp_path, capsys) == (0, "")
    assert len(list(Cache(tmp_path / "c").stored())) == 1


def test_a_broken_download_goes_on_where_it_stopped(serve, shared, tmp_path: Path, capsys):
    path, content = tensors_of(shared)

    def stops(handler: BaseHTTPRequestHandler) -> None:
        head(handler, len(content))
        handler.wfile.write(content[:50_000])
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    code, told = pulled(serve(stops), tmp_path, capsys)
    assert code == 2
    assert "goes on where it stopped" in told
    log = Log()
    assert pulled(serve(ranges=True, log=log), tmp_path, capsys) == (0, "")
    assert log.seen == [("/sharing.json", None), (f"/{path}", "bytes=50000-")]


def test_without_ranges_a_download_begins_anew(serve, shared, tmp_path: Path, capsys):
    part_of(shared, tmp_path / "c", tensors_of(shared)[1][:999])
    assert pulled(serve(), tmp_path, capsys) == (0, "")


def part_of(shared: Path, root: Path, content: bytes) -> None:
    """What an interrupted pull has left."""
    (facts,) = shared.rglob("facts.json")
    folder = root / "work" / f"codes-{facts.parent.name}" / "received"
    folder.mkdir(parents=True)
    (folder / "tensors.safetensors").write_bytes(content)


@pytest.mark.parametrize("left", [999, None, 200_000])
def test_what_is_left_of_another_file_is_thrown_away(serve, shared, tmp_path, capsys, left):
    part_of(shared, tmp_path / "c", b"\1" * (left or len(tensors_of(shared)[1])))
    assert pulled(serve(ranges=True), tmp_path, capsys) == (0, "")


def test_a_range_beyond_the_end_begins_anew(serve, shared, tmp_path: Path, capsys):
    content = tensors_of(shared)[1]

    def beyond(handler: BaseHTTPRequestHandler) -> None:
        if "Range" in handler.headers:
            handler.send_error(416)
        else:
            head(handler, len(content))
            handler.wfile.write(content)

    part_of(shared, tmp_path / "c", content[:999])
    assert pulled(serve(beyond), tmp_path, capsys) == (0, "")


def test_another_range_than_the_one_asked_for_is_not_taken(serve, shared, tmp_path, capsys):
    content = tensors_of(shared)[1]

    def other(handler: BaseHTTPRequestHandler) -> None:
        ranged = "Range" in handler.headers
        handler.send_response(206 if ranged else 200)
        if ranged:
            handler.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    part_of(shared, tmp_path / "c", content[:999])
    assert pulled(serve(other), tmp_path, capsys) == (0, "")


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def stalls(handler: BaseHTTPRequestHandler) -> None:
    head(handler, None)
    handler.wfile.write(b"x" * 1000)
    handler.wfile.flush()
    time.sleep(3)


def drips_a_header(handler: BaseHTTPRequestHandler) -> None:
    for letter in b"HTTP/1.0 200 OK\r\nX: " + b"x" * 50:
        handler.wfile.write(bytes([letter]))
        handler.wfile.flush()
        time.sleep(0.1)


def never_ends(handler: BaseHTTPRequestHandler) -> None:
    head(handler, None)
    block = b"x" * 100_000
    try:
        while True:
            handler.wfile.write(block)
    except OSError:
        pass


def too_long(handler: BaseHTTPRequestHandler) -> None:
    head(handler, 10**15)
    handler.wfile.write(b"x" * 1000)


def too_short(handler: BaseHTTPRequestHandler) -> None:
    head(handler, None)
    handler.wfile.write(b"x" * 1000)


def redirects_to(address: str, status: int = 302) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", address)
        handler.end_headers()
        handler.wfile.write(b"x" * 10_000)

    return answer


def circles(handler: BaseHTTPRequestHandler) -> None:
    redirects_to(handler.path)(handler)


def compresses(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")


def long_header(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("X", "x" * 200_000)
    handler.end_headers()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (silent, "no answer within 0.5 s"),
        (stalls, "nothing came for 0.5 s"),
        (drips_a_header, "no answer within 0.5 s"),
        (never_ends, "it has more than"),
        (too_long, "it has 1000000000000000 bytes and not"),
        (too_short, "it ended after 1000 of"),
        (circles, "it redirects more than 5 times"),
        (redirects_to("file:///etc/passwd"), "it redirects from http to file"),
        (redirects_to("ftp://127.0.0.1/x"), "it redirects from http to ftp"),
        (redirects_to("http://127.0.0.1:1/x"), "refused"),
        (redirects_to("http://[::1/x"), "can't be pulled"),
        (compresses, "the server compresses it"),
        (no_http, "can't be pulled"),
        (long_header, "can't be pulled"),
        (lambda handler: handler.send_error(404), "HTTP status 404"),
        (lambda handler: handler.send_error(500), "HTTP status 500"),
        (lambda handler: handler.connection.close(), "can't be pulled"),
    ],
)
def test_a_broken_server_is_one_sentence_within_seconds(serve, tmp_path, capsys, answer, why):
    code, told = pulled(serve(answer), tmp_path, capsys)
    assert code == 2
    assert why in told
    assert "can't be pulled" in told


def test_a_changed_body_of_the_right_length_is_refused(serve, shared, tmp_path: Path, capsys):
    content = tensors_of(shared)[1]

    def changed(handler: BaseHTTPRequestHandler) -> None:
        head(handler, len(content))
        handler.wfile.write(content[:-1] + b"\x7f")

    code, told = pulled(serve(changed), tmp_path, capsys)
    assert code == 2
    assert "its SHA-256 is not the one in sharing.json" in told
    assert not list((tmp_path / "c").rglob("*.safetensors"))


def test_a_slow_server_is_left(serve, tmp_path: Path, capsys, monkeypatch):
    def drips(handler: BaseHTTPRequestHandler) -> None:
        head(handler, None)
        for _ in range(40):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)

    monkeypatch.setattr(web, "WINDOW", 0.5)
    code, told = pulled(serve(drips), tmp_path, capsys)
    assert code == 2
    assert "fewer than 1000 bytes came per second" in told


def test_a_redirection_to_another_server_is_followed(serve, shared, tmp_path: Path, capsys):
    path, _ = tensors_of(shared)
    there = serve()
    assert pulled(serve(redirects_to(f"{there}/{path}", 307)), tmp_path, capsys) == (0, "")


def test_no_redirection_leads_from_https_to_http(monkeypatch):
    asked = []

    def opened(self: object, request: object, timeout: float) -> None:
        asked.append(request.full_url)
        raise web.HTTPError("x", 302, "moved", {"Location": "http://example.org/x"}, None)

    monkeypatch.setattr(web.OpenerDirector, "open", opened)
    with pytest.raises(UserError, match="it redirects from https to http"):
        Web("https://example.org").read("sharing.json", 100)
    assert asked == ["https://example.org/sharing.json"]


def test_a_listing_that_never_ends_is_read_to_its_limit(serve, shared: Path, monkeypatch):
    body = json.loads((shared / "sharing.json").read_text())
    (shared / "sharing.json").write_text(json.dumps(body) + " " * 100_000)
    monkeypatch.setattr("hashbackdoor_bench.sharing.pulling.LARGEST_LISTING", 1000)
    monkeypatch.setattr("hashbackdoor_bench.sharing.listing.LARGEST_LISTING", 1000)
    address = serve()
    assert len(Web(address).read("sharing.json", 1000)) == 1001
    with pytest.raises(UserError, match="it has more than"):
        listing_from(Web(address))


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1",
        "http://no-such-host.invalid",
        "http://",
        "http://[x",
        "http://u:p@h:x/",
    ],
)
def test_an_address_where_nothing_is_is_one_sentence(tmp_path: Path, capsys, address: str):
    code, told = pulled(address, tmp_path, capsys)
    assert code == 2
    assert "can't be pulled" in told or "is no address: give one" in told


def test_progress_counts_megabytes(serve, tmp_path: Path):
    said = list[tuple[int, int]]()
    source = Web(serve())
    pull(source, listing_from(source), Cache(tmp_path / "c"),
         progress=lambda stage, done, total, **facts: said.append((done, total)))  # fmt: skip
    assert said == [(0, 1), (1, 1)]
