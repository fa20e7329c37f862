"""The result of a run as one JSON file: how it is written, read back and named.

Records last. The classes of `schema` and `Record` say which fields a file has; a missing, unknown
or mistyped one is refused by its name, so that a damaged or foreign file is never averaged into a
table. A field that is added after schema 1 gets a default: it is filled in where an older record
lacks it, and is written only where it is something else, so that every record is written again as
it was read. `RunSpec.to_dict` does the same for the fields of a run, and thereby for the key.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from hashbackdoor_bench.errors import UserError, misfit
from hashbackdoor_bench.files import whole
from hashbackdoor_bench.records.schema import (
    DataFacts,
    Imperceptibility,
    Losses,
    Parameters,
    Part,
    Retrieval,
    Scores,
    Threat,
)
from hashbackdoor_bench.spec import RunSpec, digest

VERSION = 1
LARGEST = 64_000_000  # bytes of a file that is read as a record; a usual one has 30 000
INDEX = "index.csv"  # beside the records of a suite: which cell each of them is
ELSEWHERE = ("lists", "root", "weights")  # where data lies on this machine; it is in no key

# a list of numbers, which would take a line each; in a JSON string there is no line end
_NUMBERS = re.compile(r"\[\n[-+.,\deE\s]*\]")


class Record(Part, frozen=True, tag_field="schema", tag=VERSION):
    """One scored run.

    Attributes:
        key: see `record_key`.
        spec: the run as resolved; it makes the record again.
        protocol: the data.
        threat: the attack's threat model and its budget.
        scores: by convention.
        retrieval: what queries find.
        imperceptibility: how visible the trigger is.
        params: hyper-parameters.
        training: losses.
        seconds: what each stage took when it was made, without the stages before it.
        artifacts: by stage, the key of the cached artifact that the scores follow from.
        device: where the victim was trained.
        versions: of Python and the libraries that decide numbers.
        commit: of the code that trained the victim; None outside a checkout.
        dirty: whether that checkout had changed code; None outside a checkout.
    """

    key: str
    spec: RunSpec
    protocol: DataFacts
    threat: Threat
    scores: Scores
    retrieval: Retrieval
    imperceptibility: Imperceptibility
    params: Parameters
    training: Losses
    seconds: dict[str, float]
    artifacts: dict[str, str]
    device: str
    versions: dict[str, str]
    commit: str | None
    dirty: bool | None

    def to_json(self) -> str:
        """The text of the record's file.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        values = msgspec.to_builtins(self) | {"spec": self.spec.to_dict()}
        text = json.dumps(values, indent=1, sort_keys=True, allow_nan=False)
        return _NUMBERS.sub(lambda found: "".join(found[0].split()), text) + "\n"

    def write(self, path: Path) -> None:
        """Write the JSON; it appears whole or not at all."""
        text = self.to_json()
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as fresh:
            fresh.write_text(text, encoding="utf-8")


class _Head(msgspec.Struct):
    """What is looked at apart: the version, and the names in the spec."""

    schema: int | None = None
    spec: dict[str, Any] = {}


def record_path(results: Path, spec: RunSpec, key: str) -> Path:
    """Where a run's record stands: readable, and different for every spec."""
    group = results / spec.dataset / f"{spec.victim}-{spec.bits}"
    return group / f"{spec.attack}-s{spec.seed}-{key[:10]}.json"


def record_key(spec: RunSpec, artifacts: Mapping[str, str]) -> str:
    """SHA-256 over the resolved spec and the artifacts that the scores follow from.

    Where data and weights lie on this machine is left out: the artifacts' keys hold their hashes.
    """
    fields = {name: value for name, value in spec.to_dict().items() if name not in ELSEWHERE}
    return digest({"schema": VERSION, "spec": fields, "artifacts": dict(artifacts)})


def read_record(path: Path) -> Record:
    """A record from its file.

    Raises:
        UserError: it can't be read, or is no record; see `load_record`.
    """
    try:
        with path.open("rb") as file:
            return load_record(file, str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of a record.") from error


def load_record(file: IO[bytes], name: str) -> Record:
    """A record from an open file of bytes that nobody vouches for.

    Args:
        file: the file; no more than ``LARGEST`` bytes of it are taken.
        name: what the file is called, for messages.

    Raises:
        UserError: it is too large, not JSON, of another schema, or a field is missing, unknown, of
            the wrong type or out of its range.
        OSError: it can't be read.
    """
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UserError(f"{name} has more than {LARGEST / 1e6:g} MB: give the path of a record.")
    try:
        return _decoded(data)
    except msgspec.ValidationError as error:
        problem = misfit(error)
    except RecursionError:
        problem = "it is nested too deeply"
    except UserError as error:
        problem = str(error).rstrip(".")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is not JSON ({error}); run its command again.") from error
    raise UserError(f"{name} is not a record of schema {VERSION}: {problem}.")


def _decoded(data: bytes) -> Record:
    head = msgspec.json.decode(data, type=_Head)
    if head.schema != VERSION:
        raise UserError(f"its schema is {head.schema}")
    record = msgspec.json.decode(data, type=Record)
    RunSpec.check_names(head.spec)  # those of a dataclass msgspec doesn't check
    return record
