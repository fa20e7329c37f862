"""The poison of a run in one zip, so that a maintainer trains the victim and not the submitter.

    record.json              what the submitter claims
    carriers/SLOT.png        the poisoned images before the trigger, 8 bits
    planted/SLOT.png         the poisoned images with the trigger, as under delivery ``files``
    poison.csv               slot, index and item in the training list, kind, labels
    trigger.safetensors      all other tensors of the backdoor
    attack.py                the attack's file, unless it is part of this project

Nothing in the zip is executed or unpickled. A maintainer can read ``attack.py`` and then pass it as
``--plugin``.
"""

import hashlib
import inspect
import io
import zipfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench import poisoning
from hashbackdoor_bench.api import COVER, POISON, Backdoor
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room, whole
from hashbackdoor_bench.records import LARGEST, Record, load_record
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report import check_record
from hashbackdoor_bench.stages import (
    Cache,
    Content,
    Damaged,
    Plan,
    Run,
    load_data,
    made_by,
    moved,
)
from hashbackdoor_bench.text import visible
from hashbackdoor_bench.trust import poison_files
from hashbackdoor_bench.trust.archive import Archive, Refused, open_archive

CPU = torch.device("cpu")
RECORD, METHOD = "record.json", "attack.py"
LARGEST_METHOD = 1_000_000  # bytes of an attack's file


@dataclass(frozen=True)
class Submission:
    """A zip whose record was read and whose table of contents fits it.

    Attributes:
        path: the zip.
        record: the submitted record.
    """

    path: Path
    record: Record

    @property
    def images(self) -> int:
        """How many images carry a trigger."""
        return self.record.threat.poisoned + self.record.threat.covers


def pack(record: Record, cache: Cache, out: Path, **where: Any) -> int:
    """Write a record and its poison into a zip; returns the number of poisoned images.

    Args:
        record: the record.
        cache: cache with the record's backdoor.
        out: path of the zip; the file is written completely or not at all, with the same bytes
            every time.
        where: ``lists`` and ``root``, if they differ from the record's spec.

    Raises:
        UserError: the backdoor isn't in the cache, is too large, or the file can't be written.
    """
    tensors = _crafted(record, cache)
    images = len(tensors["index"])
    if images > poison_files.MOST_PICTURES:
        raise UserError(
            f"{images} images are poisoned, and a submission holds {poison_files.MOST_PICTURES} at "
            "most: give the record of a run with a smaller --budget."
        )
    spec = moved(record.spec, **where)
    splits = load_data(spec, cache)
    planted = poisoning.planted(restored(record, tensors), CPU)
    parts: dict[str, bytes] = {RECORD: record.to_json().encode()}
    parts |= poison_files.written(tensors, planted, splits.train.ids)
    method = ATTACKS[record.spec.attack]
    if method.identity["sha256"]:
        parts[METHOD] = Path(inspect.getfile(method.cls)).read_bytes()
    with room(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole(out) as fresh, zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in parts.items():
                file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return images


def unpack(path: Path) -> Submission:
    """Read the record of a zip of `pack`, and check that the zip has the parts which that needs.

    Nothing of it is written to disk. The poison is read by `hand_in`, when the data is known that
    says how large it can be.

    Raises:
        UserError: the file is not such a zip, a part of it is missing, damaged or too much, or the
            record contradicts itself.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file; give a zip of bench submit.")
    with _opened(path) as archive:
        data = archive.read(RECORD, LARGEST)
        record = load_record(io.BytesIO(data), f"{path}: its record.json")
        try:
            check_record(record)
        except UserError as error:
            raise UserError(f"{path}: its record contradicts itself: {error}") from error
        if data != record.to_json().encode():
            raise Refused(f"its {RECORD} is not written as bench run does")
        submission = Submission(path, record)
        if submission.images > poison_files.MOST_PICTURES:
            raise Refused(f"{submission.images} images are too many")
        names = {RECORD} | poison_files.expected_names(submission.images)
        if missing := names - archive.names:
            raise Refused(f"there is no {min(missing)}")
        if more := archive.names - names - {METHOD}:
            raise Refused(f"it has a part {min(more)}, which belongs to no image of its record")
        _check_method(record, archive)
    return submission


def _opened(path: Path) -> AbstractContextManager[Archive]:
    def refused(why: str) -> UserError:
        return UserError(
            f"{path} is not a complete submission ({why}): make it again with bench submit."
        )

    return open_archive(path, refused)


def _check_method(record: Record, archive: Archive) -> None:
    """Refuse an attack's file that is not the code which is used here.

    Raises:
        UserError: the attack is unknown here, or it is another.
        Refused: the file is missing, or is too much.
    """
    name = record.spec.attack
    if name not in ATTACKS and METHOD in archive.names:
        raise UserError(
            f"attack {name!r} is not part of this project: read the {METHOD} of the zip, save it "
            f"as {name}.py, and pass it with --plugin."
        )
    used = ATTACKS[name].identity["sha256"]
    if used is None and METHOD in archive.names:
        raise Refused(f"it has an {METHOD}, but attack {name!r} is part of this project")
    if used is not None:
        content = archive.read(METHOD, LARGEST_METHOD)
        if hashlib.sha256(content).hexdigest() != used:
            raise UserError(
                f"the {METHOD} of the zip is not the file of attack {name!r} that was given with "
                f"--plugin: read it, save it as {name}.py, and pass that."
            )


def restored(record: Record, tensors: dict[str, Tensor]) -> Backdoor:
    """The backdoor of a record from its state, frozen.

    Raises:
        UserError: the attack is unknown here, or the tensors are not its state.
    """
    method = ATTACKS[record.spec.attack]
    settings = method.resolve(dict(record.spec.attack_settings))
    attack = method.cls(**settings)
    try:
        backdoor: Backdoor = attack.restore(tensors)
    except Exception as error:  # whatever an attack's code raises of tensors that it didn't make
        raise UserError(
            f"these tensors are not the state of attack {method.name!r} ({error}): give the "
            "attack's file of this run with --plugin."
        ) from error
    return backdoor.eval().requires_grad_(False)


def hand_in(submission: Submission, run: Run) -> None:
    """Read a submission's poison, inspect it, and put its backdoor into the cache of a run.

    Args:
        submission: see `unpack`.
        run: a run of the submission's record, with a cache of its own.

    Raises:
        UserError: a part of the zip is not what it should be, or the poison breaks a rule, or isn't
            what the trigger plants.
    """
    record, plan = submission.record, run.plan
    splits, threat = plan.splits, record.threat
    _check_claims(submission, plan)
    with _opened(submission.path) as archive:
        state, planted = poison_files.read(
            archive, submission.images, splits.size, len(splits.classes), splits.train.ids
        )
    kinds = state["kind"]
    if (
        int((kinds == POISON).sum()) != threat.poisoned
        or int((kinds == COVER).sum()) != threat.covers
    ):
        raise UserError(
            "the submitted poison is refused: its table has another number of poisoned images than "
            "its record."
        )
    backdoor = restored(record, state)
    labels = splits.train.labels
    try:
        poisoning.inspect(
            backdoor, labels, plan.target, plan.index, plan.attack.threat, covers=plan.covers
        )
        again = poisoning.planted(backdoor, CPU)
        query = poisoning.triggered(backdoor, torch.zeros(2, 3, splits.size, splits.size))
    except Exception as error:  # whatever an attack's code raises of tensors that it didn't make
        raise UserError(f"the submitted poison is refused: {error}.") from error
    if not torch.equal(again, planted):
        raise UserError(
            "the submitted poison is refused: the planted images are not what the trigger makes "
            "of the carriers."
        )
    if query.shape != (2, 3, splits.size, splits.size):
        raise UserError("the submitted trigger is refused: it makes queries of another size.")
    kept = backdoor.state_dict()
    if any(not torch.equal(kept[name], state[name]) for name in poison_files.STATE):
        raise UserError(
            "the submitted poison is refused: the attack doesn't use the images and labels of the "
            "zip as they are."
        )

    def content(work: Path) -> Content:
        facts = {"shared": {}, "history": record.training.backdoor, "submitted": True}
        return state, {**facts, "made by": made_by(run.device)}

    stage = plan.stages["backdoor"]
    run.cache.make(stage.kind, stage.inputs, content)


def _check_claims(submission: Submission, plan: Plan) -> None:
    """Refuse a record that is not of this data, or counts more poison than its spec allows here.

    Raises:
        UserError: which of the two.
    """
    record, splits = submission.record, plan.splits
    facts, threat = record.protocol, record.threat
    if "backdoor" not in plan.stages:
        raise UserError(
            f"attack {record.spec.attack!r} poisons no images, so there is nothing to submit: "
            "reproduce its record instead."
        )
    here = (len(splits.train), len(splits.query), len(splits.database), len(splits.classes))
    claimed = (facts.train, facts.query, facts.database, facts.classes)
    if (claimed, facts.sha256) != (here, splits.sha256):
        raise UserError(
            f"{splits.name} is not the data of this submission (SHA-256 {splits.sha256[:12]} "
            f"against {visible(facts.sha256[:12])}): give its --lists and --root."
        )
    if threat.poisoned > len(plan.index) or threat.covers > len(plan.covers):
        raise UserError(
            f"the submitted poison is refused: its record counts {submission.images} images, and "
            f"here its spec draws {len(plan.index)} as poison and {len(plan.covers)} as covers."
        )


def _crafted(record: Record, cache: Cache) -> dict[str, Tensor]:
    key = record.artifacts.get("backdoor", "")
    try:
        found = cache.find("backdoor", key) if key else None
    except Damaged as error:
        raise UserError(f"the backdoor {key[:12]} is damaged ({error}): run it again.") from error
    if found is None:
        raise UserError(
            f"the backdoor {key[:12]} is not in {cache.root}: run the record's command again, or "
            "give the --cache-dir that has it."
        )
    return found.tensors
