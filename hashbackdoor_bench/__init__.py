"""hashbackdoor_bench: backdoor attacks on deep-hashing retrieval, compared.

The public names stand here and are imported when first used, so that ``bench --help`` needs no
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashbackdoor_bench.api import (
        Attack,
        AttackerView,
        Backdoor,
        Delivery,
        HashLoss,
        ThreatModel,
        to_bytes,
        to_unit,
    )
    from hashbackdoor_bench.centres import anchor_code, hash_centres
    from hashbackdoor_bench.errors import Diverged, UserError, check
    from hashbackdoor_bench.model import HashModel, sign
    from hashbackdoor_bench.perceptual import lpips_fits, lpips_for, ssim_distance
    from hashbackdoor_bench.pipeline import run
    from hashbackdoor_bench.records import Record
    from hashbackdoor_bench.registry import ATTACKS, VICTIMS
    from hashbackdoor_bench.spec import RunSpec
    from hashbackdoor_bench.triggers import (
        NoTrigger,
        Patch,
        Resized,
        checkerboard,
        paste,
        patch_side,
        resize_again,
    )

__version__ = "0.1.0"

_HOME = {
    "Attack": "api",
    "AttackerView": "api",
    "Backdoor": "api",
    "Delivery": "api",
    "HashLoss": "api",
    "ThreatModel": "api",
    "to_bytes": "api",
    "to_unit": "api",
    "anchor_code": "centres",
    "hash_centres": "centres",
    "Diverged": "errors",
    "UserError": "errors",
    "check": "errors",
    "HashModel": "model",
    "sign": "model",
    "lpips_fits": "perceptual",
    "lpips_for": "perceptual",
    "ssim_distance": "perceptual",
    "run": "pipeline",
    "Record": "records",
    "ATTACKS": "registry",
    "VICTIMS": "registry",
    "RunSpec": "spec",
    "NoTrigger": "triggers",
    "Patch": "triggers",
    "Resized": "triggers",
    "checkerboard": "triggers",
    "paste": "triggers",
    "patch_side": "triggers",
    "resize_again": "triggers",
}
__all__ = [
    "ATTACKS",
    "VICTIMS",
    "Attack",
    "AttackerView",
    "Backdoor",
    "Delivery",
    "Diverged",
    "HashLoss",
    "HashModel",
    "NoTrigger",
    "Patch",
    "Record",
    "Resized",
    "RunSpec",
    "ThreatModel",
    "UserError",
    "anchor_code",
    "check",
    "checkerboard",
    "hash_centres",
    "lpips_fits",
    "lpips_for",
    "paste",
    "patch_side",
    "resize_again",
    "run",
    "sign",
    "ssim_distance",
    "to_bytes",
    "to_unit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
