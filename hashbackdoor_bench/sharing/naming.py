"""The source that a user has named."""

from pathlib import Path
from urllib.parse import urlsplit

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.sharing.hub import HUB, Repository
from hashbackdoor_bench.sharing.sources import Folder, Source
from hashbackdoor_bench.sharing.web import Web


def source_of(text: str) -> Source:
    """The source that a user has named.

    Args:
        text: a folder, an address that begins with ``http://`` or ``https://``, or
            ``hf:OWNER/NAME`` with an optional ``@REVISION``.

    Raises:
        UserError: it is none of these.
    """
    if text.startswith(HUB):
        return Repository.named(text)
    if "://" in text:
        try:
            parts = urlsplit(text)
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            known = False
        if not known:
            raise UserError(f"{text} is no address: give one that begins with https:// or http://.")
        return Web(text)
    if not Path(text).is_dir():
        raise UserError(
            f"{text} is no folder: give a folder that `bench push` has written, its address on the "
            f"web (https://…), or a repository of Hugging Face's hub ({HUB}OWNER/NAME)."
        )
    return Folder(Path(text))
