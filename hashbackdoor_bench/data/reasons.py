"""What became of files that are not ordinary images of a set: reasons, with counts and names.

Every file of a folder or a list is an image of the set, or its name stands under one of these
reasons. `Reasons.notes` says so to the user; all reasons and their wording are in this file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hashbackdoor_bench.text import visible

NAMED = 5  # names in a note; the number of all stands before them
NAMED_UNREADABLE = 20  # users want to know which files to repair


class Reason(StrEnum):
    """Why a file is left out, or how an image that is kept was changed."""

    HIDDEN = "left out, hidden files and folders"
    OUTSIDE = "left out, files in no class folder"
    OTHER_TYPE = "left out, files that are not images by their ending"
    LINK = "left out, links to a folder that is read anyway or that holds this one"
    BROKEN_LINK = "left out, links that lead nowhere"
    NOT_REGULAR = "left out, pipes, devices and sockets"
    CLOSED = "left out, folders that can't be opened"
    UNREADABLE = "left out, images that can't be read"
    COPY = "left out, images with the same pixels as an image of another split"
    COPY_LISTED = "kept as listed, queries with the same pixels as a train or database image"
    COPY_BESIDE = "kept, images with the same pixels as another of their split"
    FOLLOWED = "kept, the images of linked folders"
    ONE_COLOUR = "kept, images of a single colour"
    TRANSPARENT = "kept, transparent images, which were laid on white"
    TURNED = "kept, images that were turned as their EXIF data says"
    FRAMES = "kept, files of several frames, of which the first is taken"
    DEEP = "kept, images of 16 bits per channel, of which the upper 8 are taken"


@dataclass
class Reasons:
    """The names of files under each reason."""

    names: dict[Reason, list[str]] = field(default_factory=dict)

    def add(self, reason: Reason, *names: str) -> None:
        """Put names under a reason."""
        if names:
            self.names.setdefault(reason, []).extend(names)

    def notes(self) -> tuple[str, ...]:
        """One sentence for each reason, in the order of `Reason`: the number, and first names."""
        return tuple(
            f"{reason.capitalize()}: {len(self.names[reason])} "
            f"({first_of(self.names[reason], _shown(reason))})."
            for reason in Reason
            if reason in self.names
        )


def merged(several: Iterable[Mapping[Reason, Iterable[str]]]) -> Reasons:
    """The names of several tables together."""
    found = Reasons()
    for table in several:
        for reason, names in table.items():
            found.add(reason, *names)
    return found


def first_of(names: Sequence[str], shown: int) -> str:
    """The first of several names: ``a, b and 5 more``."""
    first = ", ".join(map(visible, names[:shown]))
    return first + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _shown(reason: Reason) -> int:
    return NAMED_UNREADABLE if reason is Reason.UNREADABLE else NAMED
