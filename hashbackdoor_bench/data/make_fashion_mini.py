"""Build fashion_mini.npz: `python -m hashbackdoor_bench.data.make_fashion_mini [FOLDER]`.

FOLDER holds Fashion-MNIST's four idx files, and is where Debian's dataset-fashion-mnist puts them
unless given. embedded.py says what is drawn. The same files give the same arrays anywhere, and the
same bytes where zlib is the same. The printed hashes belong in embedded.py and protocols.py, which
refuse other contents.
"""

import sys
from pathlib import Path

import numpy as np

from hashbackdoor_bench.data.embedded import FILE, draw_fashion_mini, hash_arrays
from hashbackdoor_bench.data.idx import DEBIAN, pad_to_rgb, read_fashion
from hashbackdoor_bench.data.splits import SPLITS, hash_pixels


def main(folder: Path = DEBIAN, out: Path = FILE) -> None:
    """Draw from the files in ``folder``, write ``out``, print its size and hashes."""
    arrays = draw_fashion_mini(read_fashion(folder))
    np.savez_compressed(out, allow_pickle=False, **arrays)
    pixels = hash_pixels([pad_to_rgb(arrays[f"{split}_images"]) for split in SPLITS])
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")
    print(f"arrays {hash_arrays(arrays)}\npixels {pixels}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
