"""A shared folder as a data set repository of Hugging Face's hub, through ``huggingface_hub``.

Its client knows tokens, mirrors (``HF_ENDPOINT``) and proxies, and goes on with interrupted files.
All files are those of one commit. The size of a file is asked for before it is downloaded.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.patience import within
from hashbackdoor_bench.sharing.sources import Tell
from hashbackdoor_bench.text import one_line, shortened

PATIENCE = 10.0  # s in which the hub must answer
HUB = "hf:"  # how the name of a repository begins
TYPE = "dataset"
NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass
class Repository:
    """A data set repository.

    Attributes:
        repository: ``OWNER/NAME``.
        revision: a branch, tag or commit; None: the newest.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def named(cls, text: str) -> "Repository":
        """The repository of a name such as ``hf:OWNER/NAME@REVISION``.

        Raises:
            UserError: it is no such name.
        """
        name, _, revision = text.removeprefix(HUB).partition("@")
        if not NAME.fullmatch(name):
            raise UserError(f"{text} names no repository: give {HUB}OWNER/NAME.")
        return cls(name, revision or None)

    @property
    def name(self) -> str:
        """The name that the user gives."""
        return f"{HUB}{self.repository}" + (f"@{self.revision}" if self.revision else "")

    @cached_property
    def commit(self) -> str:
        """The commit of the revision.

        Raises:
            UserError: the hub doesn't answer, or there is no such repository or revision.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        with self._named():
            info = within(
                PATIENCE,
                lambda: HfApi().repo_info(
                    self.repository, revision=self.revision, repo_type=TYPE, timeout=PATIENCE
                ),
            )
            if isinstance(info, BaseException):
                raise info
        return str(info.sha)

    def read(self, path: str, most: int) -> bytes:
        """See `Source`."""
        size = self._size(path)
        if size > most:
            raise self._failed(f"{path} has {size} bytes, and {most} are allowed")
        with TemporaryDirectory() as folder:
            file = Path(folder) / "file"
            self.fetch(path, file, size, lambda count: None)
            return file.read_bytes()

    def fetch(self, path: str, to: Path, size: int, tell: Tell) -> None:
        """See `Source`; the hub's client keeps the unfinished file in a folder beside ``to``."""
        from huggingface_hub import hf_hub_download

        found = self._size(path)
        if found != size:
            raise self._failed(f"{path} has {found} bytes and not {size}")
        folder = to.parent / ".hub"
        with self._named():
            file = hf_hub_download(
                self.repository, path, repo_type=TYPE, revision=self.commit, local_dir=folder
            )
            os.replace(file, to)
        shutil.rmtree(folder, ignore_errors=True)
        tell(size)

    def has(self, path: str) -> bool:
        """Whether the repository has a file.

        Raises:
            UserError: the hub doesn't answer.
        """
        from huggingface_hub import HfApi

        with self._named():
            return HfApi().file_exists(self.repository, path, repo_type=TYPE, revision=self.commit)

    def push(self, files: Mapping[str, Path], message: str) -> str:
        """Add files in one commit, unless somebody has pushed meanwhile; returns its address.

        Args:
            files: files on this machine, by their paths in the repository.
            message: of the commit.

        Raises:
            UserError: the hub doesn't take them.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        added = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
        with self._named():
            done = HfApi().create_commit(
                self.repository, added, commit_message=message, repo_type=TYPE,
                revision=self.revision, parent_commit=self.commit,
            )  # fmt: skip
        return str(done.commit_url)

    def _size(self, path: str) -> int:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        with self._named():
            url = hf_hub_url(self.repository, path, repo_type=TYPE, revision=self.commit)
            size = get_hf_file_metadata(url, timeout=PATIENCE).size
        if size is None:
            raise self._failed(f"the hub doesn't say how large {path} is")
        return size

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn the errors of the hub's client into a message.

        Raises:
            UserError: see above.
        """
        from huggingface_hub import errors

        try:
            yield
        except errors.RepositoryNotFoundError as error:
            raise UserError(
                f"{self.name}: there is no such data set on the hub, or this machine may not see "
                "it: log in with `hf auth login`, or make it with `hf repos create "
                f"{self.repository} --repo-type dataset`."
            ) from error
        except (
            # that of the HTTP client, which is httpx or httpx2, as the hub's version wants it
            errors.HTTPError,  # type: ignore[attr-defined]
            errors.EntryNotFoundError, OSError, RuntimeError, ValueError,
        ) as error:  # fmt: skip
            raise self._failed(shortened(one_line(error), 200)) from error

    def _failed(self, why: str) -> UserError:
        return UserError(
            f"{self.name} can't be used ({why}): give the same command again, which goes on where "
            "it stopped, or look at the repository in a browser."
        )
