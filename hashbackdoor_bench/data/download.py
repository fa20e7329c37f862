"""Downloading published files once, and checking their MD5."""

import hashlib
import os
import urllib.request
import warnings
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.locks import locked
from hashbackdoor_bench.progress import Progress

SECONDS = 60.0  # a download fails when nothing is received for this time
BLOCK = 1 << 20  # bytes read at once


def fetch(files: Mapping[str, str], folder: Path, progress: Progress, *, otherwise: str) -> None:
    """Download files into a folder, unless they are there as published.

    A file gets its name when it is complete, so a killed download leaves no damaged file. One that
    was damaged later is named and fetched again.

    Args:
        files: MD5 of each file by its address; the last part of the address is the file's name.
        folder: the folder; made if it doesn't exist.
        progress: called with the number of MB of each file.
        otherwise: what a user without a network can do, as the end of a sentence.

    Raises:
        UserError: an address can't be reached, or the file is not the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"fetching files into {folder}", progress):
        for address, md5 in files.items():
            file = folder / address.rpartition("/")[2]
            if file.is_file():
                if _md5(file) == md5:
                    continue
                warnings.warn(
                    f"{file} is not as it was published (its MD5 differs): fetched again."
                )
            part = file.with_name(f"{file.name}.part")
            try:
                found = _copy(address, part, progress)
                if found != md5:
                    raise UserError(
                        f"{address} gave a file with MD5 {found} instead of {md5}: {otherwise}."
                    )
                os.replace(part, file)
            except (OSError, HTTPException) as error:
                raise UserError(f"{address} cannot be fetched ({error}): {otherwise}.") from error
            finally:
                part.unlink(missing_ok=True)


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def _copy(address: str, to: Path, progress: Progress) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(address, timeout=SECONDS) as source, to.open("wb") as target:
        total = max(int(source.headers.get("Content-Length") or 0) // BLOCK, 1)
        progress(f"fetch {address}", 0, total)
        for done, block in enumerate(iter(lambda: source.read(BLOCK), b""), 1):
            digest.update(block)
            target.write(block)
            progress(f"fetch {address}", min(done, total), total)
    return digest.hexdigest()
