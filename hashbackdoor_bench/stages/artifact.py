"""An artifact: the result of a stage, as a folder of two files that nobody need trust.

``tensors.safetensors`` holds its tensors, and ``facts.json`` the inputs of the stage, what it says
beside the tensors, and the hashes of both. No file is ever unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular, sha256_of
from hashbackdoor_bench.spec import digest

FILES = ("facts.json", "tensors.safetensors")
LARGEST_FACTS = 200_000_000  # bytes of facts.json that are read; a usual one has 3 000
Content = tuple[Mapping[str, Tensor], Mapping[str, Any]]


@dataclass(frozen=True)
class Artifact:
    """The stored result of a stage.

    Attributes:
        key: SHA-256, in hex, of the stage and its inputs.
        tensors: tensors by name, on the CPU.
        facts: JSON values by name.
        seconds: the time it took to make.
    """

    key: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    seconds: float


def content_hash(folder: Path) -> str | None:
    """SHA-256 of the tensors in the folder of an artifact, as its facts say; None if they don't."""
    try:
        with open_regular(folder / FILES[0], links=False) as file:
            found = json.loads(file.read(LARGEST_FACTS))["sha256"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError, UserError):
        return None
    return found if isinstance(found, str) else None


class Damaged(Exception):
    """The files of a stored artifact are damaged or belong to another artifact."""


def read_artifact(folder: Path, stage: str, key: str) -> Artifact:
    """The artifact of this stage and key from a folder; nothing in the folder is trusted.

    Raises:
        Damaged: a file is missing, cut off, or not what its hash says; or it is the artifact of
            another key.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise Damaged("it is no directory")
    try:
        with open_regular(folder / FILES[0], links=False) as file:
            text = file.read(LARGEST_FACTS + 1)
        if len(text) > LARGEST_FACTS:
            raise Damaged(f"{FILES[0]} has more than {LARGEST_FACTS / 1e6:g} MB")
        body = json.loads(text)
        check = body.pop("check")
        if digest(body) != check:
            raise Damaged(f"{FILES[0]} was changed")
        if (body["stage"], body["key"]) != (stage, key):
            raise Damaged(f"it is {body['stage']} {str(body['key'])[:12]}")
        if digest({"stage": stage, "inputs": body["inputs"]}) != key:
            raise Damaged("its inputs belong to another artifact")
        open_regular(folder / FILES[1], links=False).close()
        if sha256_of(folder / FILES[1]) != body["sha256"]:
            raise Damaged(f"{FILES[1]} was changed")
        tensors = load_file(folder / FILES[1])
        facts, seconds = body["facts"], float(body["seconds"])
        if not isinstance(facts, dict):
            raise Damaged("its facts have no names")
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError,
        UserError,
    ) as error:  # fmt: skip
        raise Damaged(f"{type(error).__name__}: {error}") from error
    return Artifact(key, tensors, facts, seconds)
