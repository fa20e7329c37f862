"""Published weights from a hub: taken from its local cache, or from a host that answers.

A host is asked before anything is downloaded from it, since timm would ask one that doesn't answer
six times for each of two file names, which takes 50 s and more, and torch waits without a limit.
The download itself has no limit: a slow hub works.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import TypeVar
from unittest.mock import patch
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from safetensors import SafetensorError
from torch.hub import get_dir

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.network.packaged import without_hub
from hashbackdoor_bench.patience import within

PATIENCE = 4  # s that a host has to answer
PICKLED = "pytorch_model.bin"  # the name on the hub where none is given
SAFE = "model.safetensors"  # the same file in the other format, which timm prefers

Network = TypeVar("Network")


@dataclass(frozen=True)
class Source:
    """Where published weights are.

    Attributes:
        url: address of the file.
        repository: its repository on Hugging Face's hub, ``NAME`` or ``NAME@REVISION``; empty if it
            is somewhere else.
        file: its name in the repository.
    """

    url: str
    repository: str = ""
    file: str = PICKLED

    @classmethod
    def of_timm(cls, name: str) -> "Source | None":
        """Where timm has the weights of a network from; None if it has none.

        That is Hugging Face's hub, or the mirror that ``HF_ENDPOINT`` names, for most of them.
        """
        from huggingface_hub import hf_hub_url
        from timm import get_pretrained_cfg

        known = get_pretrained_cfg(name)
        if known is not None and known.hf_hub_id:
            repository, _, revision = known.hf_hub_id.partition("@")
            file = known.hf_hub_filename or PICKLED
            url = hf_hub_url(repository, file.replace(PICKLED, SAFE), revision=revision or None)
            return cls(url, known.hf_hub_id, file)
        address = known.url if known is not None else None
        if isinstance(address, tuple):  # with the name of the file
            address = address[0]
        return cls(address) if address else None

    @property
    def host(self) -> str:
        """The host that is asked."""
        return urlsplit(self.url).netloc or self.url

    @property
    def cached(self) -> bool:
        """Whether the file was downloaded before, under any name that timm would look for."""
        if not self.repository:
            name = PurePosixPath(urlsplit(self.url).path).name
            return (Path(get_dir()) / "checkpoints" / name).is_file()
        from huggingface_hub import try_to_load_from_cache

        name, _, revision = self.repository.partition("@")
        files = {
            self.file.replace(PICKLED, SAFE),
            str(PurePosixPath(self.file).with_suffix(".safetensors")),
            self.file,
        }
        return any(
            isinstance(try_to_load_from_cache(name, file, revision=revision or None), str)
            for file in files
        )

    def ask(self) -> int:
        """The HTTP status of a request for the file's header, by the client that would download it.

        Proxies and certificates are therefore those of the download.
        """
        if self.repository:
            from huggingface_hub import get_session

            return int(get_session().head(self.url, timeout=PATIENCE).status_code)
        try:
            with urlopen(Request(self.url, method="HEAD"), timeout=PATIENCE) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    def silence(self) -> str:
        """Why nothing can be downloaded from the host; empty if it answers within `PATIENCE`."""
        from huggingface_hub import constants

        if self.repository and constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set, and they are not in the cache"
        try:
            answer = within(PATIENCE, self.ask)
        except TimeoutError:
            return f"{self.host} doesn't answer within {PATIENCE} s"
        if isinstance(answer, BaseException):
            return f"{self.host}: {first_line(answer)}"
        # 404 and the like come from a host that works; 5xx mostly from a proxy that can't reach it.
        return f"{self.host} answers with HTTP status {answer}" if answer >= 500 else ""


def fetch(name: str, source: Source, make: Callable[[], Network]) -> Network:
    """Make a network with its published weights.

    Args:
        name: name of the backbone.
        source: where its weights are.
        make: makes the network, and downloads its weights if they are not in the cache.

    Raises:
        UserError: the host doesn't answer within `PATIENCE`, or the weights can't be loaded.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError as HubError  # type: ignore[attr-defined]

    def refusal(why: str) -> UserError:
        return UserError(
            f"the published weights of backbone {name!r} can't be had ({why}): {without_hub(name)}"
        )

    cached = source.cached
    if not cached and (why := source.silence()):
        raise refusal(why)
    try:  # offline, the hub isn't asked for a newer version of a file in the cache
        with patch.object(constants, "HF_HUB_OFFLINE", cached or constants.HF_HUB_OFFLINE):
            return make()
    except (OSError, RuntimeError, ValueError, UnpicklingError, SafetensorError, HubError) as error:
        raise refusal(first_line(error)) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 160 characters; else the error's name."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
