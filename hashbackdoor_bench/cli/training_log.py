"""The log of every training for TensorBoard: ``--log-dir``.

A training has a folder, named by the record of its run and by its stage, so that it is found from
the record: ``fashion-mini/hashnet-48/ciba-s0-ab12cd34ef/train_clean_victim``. A point is an epoch.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room, writable
from hashbackdoor_bench.report import for_file_name
from hashbackdoor_bench.text import counted

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from hashbackdoor_bench.progress import Log

TAGS = {
    "loss": "loss",
    "rate": "learning rate/backbone",
    "head_rate": "learning rate/hash layer",
    "epoch_seconds": "seconds per epoch",
}


@contextmanager
def training_log(folder: Path | None, results: Path) -> "Iterator[Log | None]":
    """The log of ``--log-dir``; None if there is none. At its end one is told what is in it.

    Args:
        folder: where it is written.
        results: folder of the records.

    Raises:
        UserError: TensorBoard is not installed, or the folder can't be written.
    """
    if folder is None:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise UserError(
            f"--log-dir {folder} needs TensorBoard: pip install "
            '"hashbackdoor-bench[tensorboard]", or leave --log-dir out.'
        ) from error
    writable(folder, "--log-dir")
    log = _EventFiles(folder, results, SummaryWriter)
    try:
        yield log
    finally:
        log.close()
    count = log.begun.total()
    if count:
        many = counted(count, "training")
        say(f"log       {folder}: {many}; look at it with tensorboard --logdir {folder}", err=True)
    else:
        say(f"note: nothing was trained, so nothing was written to {folder}.", err=True)


class _EventFiles:
    """A `progress.Log`.

    Args:
        folder: where the event files go.
        results: folder of the records.
        writer: makes a `SummaryWriter`.
    """

    def __init__(self, folder: Path, results: Path, writer: "type[SummaryWriter]") -> None:
        self.folder, self.results, self.writer = folder, results, writer
        self.begun = Counter[tuple[Path, str]]()  # trainings of each run's stage: some have several
        self.open: dict[tuple[Path, str], SummaryWriter] = {}

    def __call__(self, record: Path, stage: str, facts: Mapping[str, float]) -> None:
        """See `progress.Log`."""
        epoch = int(facts["epoch"])
        with room(self.folder):
            writer = self.open.get((record, stage)) or self._begin(record, stage, epoch)
            for name, tag in TAGS.items():
                writer.add_scalar(tag, facts[name], epoch)
            writer.flush()  # so that TensorBoard shows it while the training goes on
            if epoch == facts["epochs"]:
                self.open.pop((record, stage)).close()

    def _begin(self, record: Path, stage: str, epoch: int) -> "SummaryWriter":
        """The writer of a new training; what an earlier one wrote from this epoch on is hidden."""
        self.begun[record, stage] += 1
        number = self.begun[record, stage]
        name = for_file_name(stage) + (f"-{number}" if number > 1 else "")
        place = self.folder / record.relative_to(self.results).with_suffix("") / name
        self.open[record, stage] = self.writer(str(place), purge_step=epoch)
        return self.open[record, stage]

    def close(self) -> None:
        """Close what is open: the trainings that were interrupted."""
        for writer in self.open.values():
            writer.close()
