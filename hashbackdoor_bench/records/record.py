"""The result of a run as one JSON file: how it is written, read back and named.

Published records must stay readable. The classes of `schema` and `retrieval`, and `Record`, define
the fields of a file; a missing, unknown or mistyped field is an error that names it, so that no
damaged or foreign file gets into a table. A field that is added after schema 1 must have a default,
which is used for older records and is not written to new ones, so every record is written exactly
as it was read.
`RunSpec.to_dict` follows the same rule for the fields of a run, and so for its key.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from hashbackdoor_bench.errors import UserError, misfit
from hashbackdoor_bench.files import open_regular, whole
from hashbackdoor_bench.records.defended import Defended
from hashbackdoor_bench.records.dispersion import Dispersion
from hashbackdoor_bench.records.limits import check_keys, check_names, check_values
from hashbackdoor_bench.records.retrieval import Retrieval
from hashbackdoor_bench.records.schema import (
    DataFacts,
    Hash,
    Imperceptibility,
    Losses,
    Numerics,
    Parameters,
    Part,
    Scores,
    Text,
    Threat,
)
from hashbackdoor_bench.spec import RunSpec, digest

VERSION = 1
LARGEST = 4_000_000  # bytes of a file that is read as a record; a usual one has 30 000
PUBLISHED = Path("results")  # folder of the published records, and of what is made from them
OWN = Path("runs")  # where runs and suites put their records if nothing else is said
INDEX = "index.csv"  # file beside the records of a suite, with the table row of each record
REFUSED = "refused.csv"  # file beside them, with the runs that can't be, and why
ELSEWHERE = ("lists", "root", "weights")  # paths on this machine, which are in no key

# A list of numbers, to be written on one line; a JSON string can't contain line ends.
_NUMBERS = re.compile(r"\[\n[-+.,\deE\s]*\]")


class Record(Part, frozen=True, tag_field="schema", tag=VERSION):
    """One scored run.

    Attributes:
        key: see `record_key`.
        spec: the run with all defaults filled in, from which it can be repeated.
        protocol: the data.
        threat: the attack's threat model and its budget.
        scores: scores by convention.
        retrieval: what queries retrieve.
        imperceptibility: how visible the trigger is.
        params: hyper-parameters.
        training: losses.
        seconds: the time of each stage when it was made, without the stages before it.
        artifacts: by stage, the key of the cached artifact from which the scores were computed.
        device: device on which the victim was trained.
        versions: versions of Python and of the libraries that affect numbers.
        commit: commit of the code that trained the victim; None outside a git checkout.
        dirty: whether that checkout had uncommitted code; None outside a git checkout.
        numerics: what all artifacts were computed under; None in records of older code, whose
            stages may have been computed under several.
        checksum: see `checksum_of`; None in records of older code.
        defense: what the defense did; None without one. All other scores are of the victim without
            it.
        dispersion: how the poison is dispersed in the space of codes, for attacks that perturb it
            by its codes; None for others, and in records of older code.
    """

    key: Hash
    spec: RunSpec
    protocol: DataFacts
    threat: Threat
    scores: Scores
    retrieval: Retrieval
    imperceptibility: Imperceptibility
    params: Parameters
    training: Losses
    seconds: dict[Text, float]
    artifacts: dict[Text, Hash]
    device: Text
    versions: dict[Text, Text]
    commit: Text | None
    dirty: bool | None
    numerics: Numerics | None = None
    checksum: Text | None = None
    defense: Defended | None = None
    dispersion: Dispersion | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The JSON values of the record's file."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values | {"spec": self.spec.to_dict()}

    def to_json(self) -> str:
        """The text of the record's file.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        text = json.dumps(self.values, indent=1, sort_keys=True, allow_nan=False)
        return _NUMBERS.sub(lambda found: "".join(found[0].split()), text) + "\n"

    def write(self, path: Path) -> None:
        """Write the JSON file completely or not at all."""
        text = self.to_json()
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as fresh:
            fresh.write_text(text, encoding="utf-8")


def record_path(results: Path, spec: RunSpec, key: str) -> Path:
    """The path of a run's record: readable, and different for every spec."""
    name = f"{spec.attack}-s{spec.seed}-{key[:10]}.json"
    return results.joinpath(spec.dataset, f"{spec.victim}-{spec.bits}", name)


def record_key(spec: RunSpec, artifacts: Mapping[str, str]) -> str:
    """SHA-256 over the resolved spec and the artifacts from which the scores were computed.

    Paths on this machine are left out; the keys of the artifacts contain the hashes of the files.
    """
    fields = {name: value for name, value in spec.to_dict().items() if name not in ELSEWHERE}
    return digest({"schema": VERSION, "spec": fields, "artifacts": dict(artifacts)})


def checksum_of(record: Record) -> str:
    """SHA-256 over all other fields of a record.

    It shows that a file was damaged or edited. Who means to deceive computes it again, so it says
    nothing about whether the scores are true: that needs the codes.
    """
    return digest({name: value for name, value in record.values.items() if name != "checksum"})


def with_checksum(record: Record) -> Record:
    """The record as it will be read from its file, where ``2`` as a time is 2.0; with a checksum.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    read: Record = msgspec.convert(record.values, type(record))
    return msgspec.structs.replace(read, checksum=checksum_of(read))


def read_record(path: Path, *, links: bool = True) -> Record:
    """A record from its file.

    Args:
        path: the file.
        links: whether it may be a link to one, see `files.open_regular`.

    Raises:
        UserError: the file can't be read, or is not a record; see `load_record`.
    """
    return read_sealed(path, links=links)[0]


def read_sealed(path: Path, *, links: bool = True) -> tuple[Record, bool]:
    """A record from its file, and whether the checksum in it was seen to be that of its text.

    Whoever wants to know whether a record was changed can so leave out `checksum_of`, which takes
    twice as long as reading. False says nothing: the text may be of another program.

    Args:
        path: see `read_record`.
        links: see `read_record`.

    Raises:
        UserError: see `read_record`.
    """
    try:
        with open_regular(path, links=links) as file:
            return _load(file, str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of a record.") from error


def load_record(file: IO[bytes], name: str) -> Record:
    """A record from an open file of bytes, which need not be trusted.

    Args:
        file: the file; no more than ``LARGEST`` bytes of it are read.
        name: name of the file for messages.

    Raises:
        UserError: the file is too large, not JSON or of another schema, or a field is missing,
            unknown, there twice, of the wrong type or outside its limits.
        OSError: the file can't be read.
    """
    return _load(file, name)[0]


def _load(file: IO[bytes], name: str) -> tuple[Record, bool]:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UserError(f"{name} has more than {LARGEST / 1e6:g} MB: give the path of a record.")
    try:
        compact = msgspec.json.format(data, indent=-1)
        record = _decoded(compact)
        return record, _sealed(compact, record)
    except msgspec.ValidationError as error:
        problem = misfit(error)
    except RecursionError:
        problem = "it is nested too deeply"
    except UserError as error:
        problem = str(error).rstrip(".")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is not JSON ({error}); run its command again.") from error
    end = "" if problem.endswith("?") else "."
    raise UserError(f"{name} is not a record of schema {VERSION}: {problem}{end}")


def _decoded(data: bytes) -> Record:
    values = msgspec.json.decode(data)
    schema = values.get("schema") if isinstance(values, dict) else VERSION
    if isinstance(schema, int | None) and schema != VERSION:  # before its fields
        raise UserError(f"its schema is {schema}")
    record = msgspec.convert(values, type=Record)
    RunSpec.check_names(values["spec"])  # msgspec doesn't refuse unknown fields of a dataclass
    check_keys(data, values)
    check_values("spec", values["spec"])
    for kind in ("attack", "victim", "defense"):
        settings = getattr(record.spec, f"{kind}_settings")
        check_names(f"spec.{kind}_settings", (name for name, _ in settings))
    check_values("params", msgspec.structs.asdict(record.params))
    if record.defense is not None:
        check_values("defense", {"settings": record.defense.settings})
    return record


def _sealed(data: bytes, record: Record) -> bool:
    """Whether the checksum is that of the text, without spaces and without the checksum.

    `Record.to_json` writes what `canonical` does, but for the spaces.
    """
    if record.checksum is None:
        return False
    rest = data.replace(f'"checksum":"{record.checksum}",'.encode(), b"", 1)
    return hashlib.sha256(rest).hexdigest() == record.checksum
