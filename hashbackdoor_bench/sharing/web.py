"""Reading shared files from any web server that serves a folder.

A server may be broken or hostile: it must answer within seconds, go on sending, and send neither
more nor less than the listing says; a few redirections are followed, but none from https to http.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room
from hashbackdoor_bench.patience import within
from hashbackdoor_bench.sharing.sources import BLOCK, Tell
from hashbackdoor_bench.text import one_line, shortened

PATIENCE = 10.0  # s in which a server must answer, and must send something
LEAST, WINDOW = 1000, 30.0  # bytes per second that must come, on average over so many seconds
REDIRECTIONS = 5
BEYOND = 416  # HTTP status of a file that ends before the part that was asked for
MOVED = (301, 302, 303, 307, 308)  # HTTP status of a redirection


@dataclass(frozen=True)
class Web:
    """A shared folder on a web server.

    Attributes:
        address: of the folder, or of its listing.
    """

    address: str

    @property
    def name(self) -> str:
        """The address."""
        return self.address

    def read(self, path: str, most: int) -> bytes:
        """See `Source`."""
        with self._open(path, 0) as answer:
            found = bytearray()
            for block in self._blocks(path, answer):
                found += block
                if len(found) > most:
                    break
        return bytes(found[: most + 1])

    def fetch(self, path: str, to: Path, size: int, tell: Tell) -> None:
        """See `Source`."""
        start = to.stat().st_size if to.is_file() else 0
        start = start if start < size else 0
        answer = self._open(path, start)
        if start and not _goes_on(answer, start, size):
            start = 0
            if answer.status != 200:  # another part of the file
                answer.close()
                answer = self._open(path, start)
        with answer:
            length = answer.headers.get("Content-Length")
            if length is not None and length.strip() != str(size - start):
                raise self._failed(path, f"it has {one_line(length)} bytes and not {size - start}")
            tell(start)
            with room(to.parent):
                file = to.open("ab" if start else "wb")
            with file:
                for block in self._blocks(path, answer):
                    start += len(block)
                    if start > size:
                        raise self._failed(path, f"it has more than {size} bytes")
                    with room(to.parent):
                        file.write(block)
                    tell(len(block))
        if start < size:
            raise self._failed(path, f"it ended after {start} of {size} bytes")

    def _open(self, path: str, start: int) -> HTTPResponse:
        """The answer to a request for a file, from byte number ``start`` on."""
        try:
            answer = within(PATIENCE, lambda: _ask(self._url(path), start))
        except TimeoutError as error:
            raise self._failed(path, str(error)) from None
        if isinstance(answer, HTTPError):
            raise self._failed(path, f"HTTP status {answer.code}") from answer
        if isinstance(answer, BaseException):
            raise self._failed(path, _words(answer)) from answer
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            answer.close()
            raise self._failed(path, "the server compresses it, although it was not asked to")
        return answer

    def _url(self, path: str) -> str:
        parts = urlsplit(self.address)
        base = parts.path.removesuffix("sharing.json").rstrip("/")
        return urlunsplit(parts._replace(path=f"{base}/{quote(path)}", fragment=""))

    def _blocks(self, path: str, answer: HTTPResponse) -> Iterator[bytes]:
        """The bytes of an answer, as they come."""
        since, came = time.monotonic(), 0
        try:
            while block := answer.read1(BLOCK):
                yield block
                came += len(block)
                passed = time.monotonic() - since
                if passed > WINDOW:
                    if came < LEAST * passed:
                        raise self._failed(path, f"fewer than {LEAST} bytes came per second")
                    since, came = time.monotonic(), 0
        except (OSError, HTTPException) as error:
            raise self._failed(path, _words(error)) from error

    def _failed(self, path: str, why: str) -> UserError:
        return UserError(
            f"{self._url(path)} can't be pulled ({why}): give the same command again, which goes "
            "on where it stopped, or look at the address in a browser."
        )


def _ask(url: str, start: int) -> HTTPResponse:
    """Ask for a file, at the addresses to which the server redirects, if it does.

    Raises:
        HTTPError: the server answers with an error.
        OSError: it can't be reached.
        ValueError: it redirects too often, or to what is no web address.
        HTTPException: what it answers is no HTTP.
    """
    opener = OpenerDirector()  # only the web: not file:// and ftp://
    for handler in (
        ProxyHandler(), HTTPHandler(), HTTPSHandler(), HTTPErrorProcessor(),
        HTTPDefaultErrorHandler(),
    ):  # fmt: skip
        opener.add_handler(handler)
    for _ in range(REDIRECTIONS + 1):
        headers = {"Accept-Encoding": "identity", "User-Agent": "hashbackdoor_bench"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            answer: HTTPResponse = opener.open(Request(url, headers=headers), timeout=PATIENCE)
            return answer
        except HTTPError as error:
            where = error.headers.get("Location") if error.code in MOVED else None
            if error.code == BEYOND and start:
                start, where = 0, url
            if where is None:
                raise
            error.close()
            url, before = urljoin(url, where), urlsplit(url).scheme
            after = urlsplit(url).scheme
            if after not in ("http", "https") or (before, after) == ("https", "http"):
                raise ValueError(f"it redirects from {before} to {after}") from error
    raise ValueError(f"it redirects more than {REDIRECTIONS} times")


def _goes_on(answer: HTTPResponse, start: int, size: int) -> bool:
    """Whether an answer is the rest of a file, from byte number ``start`` on."""
    return (
        answer.status == 206
        and answer.headers.get("Content-Range") == f"bytes {start}-{size - 1}/{size}"
    )


def _words(error: BaseException) -> str:
    """What an error says, on one line."""
    if isinstance(error, TimeoutError):
        return f"nothing came for {PATIENCE:g} s"
    reason = getattr(error, "reason", None) or error
    return shortened(one_line(reason), 160) or type(error).__name__
