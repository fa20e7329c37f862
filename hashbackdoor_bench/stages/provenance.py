"""The origin of a result: device, library versions and commit."""

import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import torch

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.text import counted

LIBRARIES = ("hashbackdoor-bench", "torch", "torchvision", "timm", "torchmetrics", "numpy")


def device_of(name: str) -> torch.device:
    """The device of ``--device``: ``auto`` is CUDA where there is a GPU.

    Raises:
        UserError: the name is unknown, or is ``cuda`` and there is no GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: choose auto, cpu or cuda.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch sees no GPU here; take --device cpu.")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: choose auto, cpu or cuda.") from error


def made_by(device: torch.device) -> dict[str, Any]:
    """The origin of a new artifact: ``device``, ``versions``, ``commit`` and ``dirty``."""
    commit, dirty = checkout()
    return {
        "device": device_name(device),
        "versions": dict(versions()),
        "commit": commit,
        "dirty": dirty,
    }


@cache
def versions() -> Mapping[str, str]:
    """The versions of Python and of the libraries; kept, since metadata take 5 ms to read."""
    return {"python": platform.python_version()} | {name: installed(name) for name in LIBRARIES}


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor with the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()}, {counted(torch.get_num_threads(), 'thread')}"


@cache
def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def checkout() -> tuple[str | None, bool | None]:
    """The commit of the code, and whether code was changed since; (None, None) without git."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "provenance.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ":/*.py"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
