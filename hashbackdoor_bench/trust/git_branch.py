"""A branch with one more commit in a clone of git, without touching its files or its index.

Only git's plumbing is used: no file of the working tree changes, no branch is switched, and no hook
of the clone runs.
"""

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.text import one_line, shortened

SECONDS = 300  # s that one command of git may take
OURS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")  # set inside of hooks


class Clone:
    """A clone.

    Args:
        folder: a folder in its working tree.

    Raises:
        UserError: git is not installed, or the folder is in no clone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise UserError(f"--pr {folder} is no folder: give a clone of the benchmark.")
        found = self.ask("rev-parse", "--show-toplevel")
        if found is None:
            raise UserError(
                f"--pr {folder} is no clone of git: make one of the benchmark with git clone, and "
                "give its folder."
            )
        self.folder = Path(found)

    def base(self) -> str:
        """The branch of ``origin`` into which pull requests go; else what is checked out.

        Raises:
            UserError: there is no commit.
        """
        found = self.ask("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
        return found if found and self.ask("rev-parse", "--verify", "--quiet", found) else "HEAD"

    def has(self, revision: str, path: str) -> bool:
        """Whether a file or folder is part of a revision."""
        return self.ask("cat-file", "-e", f"{revision}:{path}") is not None

    def has_branch(self, name: str) -> bool:
        """Whether there is a branch of this name."""
        return self.ask("rev-parse", "--verify", "--quiet", f"refs/heads/{name}") is not None

    def commit(self, branch: str, base: str, files: Mapping[str, Path], message: str) -> str:
        """Make a branch whose one commit adds files to ``base``; returns its hash.

        Args:
            branch: name of the new branch.
            base: the revision before it.
            files: files anywhere, by their paths in the repository.
            message: of the commit.

        Raises:
            UserError: git refuses, for example since it doesn't know who commits.
        """
        with TemporaryDirectory() as work:
            index = {"GIT_INDEX_FILE": str(Path(work) / "index")}
            self.must("read-tree", base, more=index)
            paths = "".join(f"{file.absolute()}\n" for file in files.values())
            hashes = self.must(
                "hash-object", "-w", "--no-filters", "--stdin-paths", given=paths
            ).split()
            lines = (f"100644 {one}\t{path}\n" for path, one in zip(files, hashes, strict=True))
            self.must("update-index", "--add", "--index-info", given="".join(lines), more=index)
            tree = self.must("write-tree", more=index)
        made = self.must("commit-tree", tree, "-p", base, given=message)
        self.must("branch", "--no-track", branch, made)
        return made

    def push(self, remote: str, branch: str) -> None:
        """Push a branch.

        Raises:
            UserError: git refuses, or can't reach the remote; the branch stays.
        """
        words = ("push", "--", remote, f"refs/heads/{branch}:refs/heads/{branch}")
        by_hand = shlex.join(["git", "-C", str(self.folder), "push", remote, branch])
        self.must(*words, then=f"type {by_hand}")

    def ask(self, *words: str) -> str | None:
        """What git prints, without the end of the line; None if it fails."""
        done = self._run(words, "", {})
        return done.stdout.strip() if done.returncode == 0 else None

    def must(
        self,
        *words: str,
        given: str = "",
        more: Mapping[str, str] | None = None,
        then: str = "give the same command again",
    ) -> str:
        """The same of a command that must not fail.

        Args:
            words: the command.
            given: its input.
            more: environment variables.
            then: what the user types when what has failed is put right.

        Raises:
            UserError: it fails.
        """
        done = self._run(words, given, more or {})
        if done.returncode:
            why = shortened(one_line(done.stderr or f"exit code {done.returncode}"), 300)
            raise UserError(
                f"git {words[0]} fails in {self.folder} ({why}): put that right and {then}."
            )
        return done.stdout.strip()

    def _run(
        self, words: tuple[str, ...], given: str, more: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        try:
            return subprocess.run(
                ["git", "-C", str(self.folder), *words],
                input=given,
                env={**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **more},
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise UserError("git is not installed: install it, or give --out for a zip.") from error
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"git {words[0]} takes more than {SECONDS} s in {self.folder}: run it by hand."
            ) from error
