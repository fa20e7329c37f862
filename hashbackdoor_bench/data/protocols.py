"""The table of protocols: the sizes of their splits, R, and the files that a user needs.

A protocol says which images are train, query and database. A number that was never published is
None. This file imports neither torch nor numpy, so that listing the table is fast.
"""

from dataclasses import dataclass
from typing import Literal

from hashbackdoor_bench.errors import unknown

SMALL = 192  # px: up to this size the defaults need no pretrained weights

Source = Literal["embedded", "fashion-mnist", "cifar10", "lists", "folder"]

FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
# WordNet ids in the order of the label columns, as CIBA's authors published them (DHTA's classes).
CIBA_IMAGENET = (
    "n02219486 n02013706 n04296562 n03832673 n02280649 n03160309 n03956157 n04330267 "
    "n03344393 n02108915 n04317175 n03447721 n04266014 n04613696 n03063689 n02444819 "
    "n04120489 n02504458 n02107908 n04179913 n03538406 n03884397 n02097047 n02951585 "
    "n02100583 n01819313 n01770393 n02137549 n03837869 n02412080 n07873807 n04399382 "
    "n04409515 n04599235 n02879718 n03908618 n07753113 n02971356 n03930630 n02056570 "
    "n02090379 n01580077 n03729826 n01855032 n04350905 n02113799 n04162706 n03775546 "
    "n04486054 n03804744 n01669191 n04264628 n04081281 n02268853 n03666591 n07880968 "
    "n02091134 n02099601 n04485082 n02364673 n02281787 n03594945 n03903868 n04033901 "
    "n04263257 n03065424 n03840681 n03131574 n03920288 n02168699 n03063599 n02123045 "
    "n02690373 n04398044 n02111889 n02814860 n02804610 n04204347 n02085936 n01675722 "
    "n02977058 n04239074 n03445924 n07730033 n01776313 n09332890 n01986214 n02028035 "
    "n02093428 n03014705 n06874185 n03259280 n03877472 n02169497 n13054560 n02119789 "
    "n03935335 n04540053 n02086910 n03496892"
)


@dataclass(frozen=True)
class Protocol:
    """A named protocol; these facts are known before any file is read.

    Attributes:
        name: name on the command line.
        description: one sentence.
        source: the kind of files from which it is read.
        train: images in the train split; None if no number was published.
        query: images in the query list, unlabelled ones included.
        database: images in the database.
        classes: number of classes C.
        top_k: R of MAP@R; None is the whole database.
        side: side in px of the images as stored.
        size: side in px of the network's input.
        target: the default target class, which triggered queries shall retrieve.
        class_names: names in the order of the label columns; empty if unknown.
        sha256: hash of the item lists, if it is known in advance; see `Splits.sha256`.
        pixels: hash of the pixels, if it is known in advance; see `Splits.pixels`.
    """

    name: str
    description: str
    source: Source
    train: int | None = None
    query: int | None = None
    database: int | None = None
    classes: int | None = None
    top_k: int | None = None
    side: int = 256
    size: int = 224
    target: str = "0"
    class_names: tuple[str, ...] = ()
    sha256: str = ""
    pixels: str = ""

    @property
    def recipe(self) -> str:
        """Name of the default recipe."""
        return "scratch32" if self.size <= SMALL else "finetune224"

    @property
    def backbone(self) -> str:
        """Name of the default backbone."""
        return "cnn32" if self.size <= SMALL else "resnet50"

    @property
    def bring(self) -> str:
        """What a user needs to load it: files, options or a network; empty if nothing."""
        return {
            "embedded": "",
            "fashion-mnist": "apt install dataset-fashion-mnist, --root DIR, or a network",
            "cifar10": "--root DIR with cifar-10-batches-py, or a network",
            "lists": "--lists DIR (train.txt, database.txt, test.txt or query.txt) and --root DIR",
            "folder": "--root DIR with one folder of images per class",
        }[self.source]


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "fashion-mini",
            "a class-balanced part of Fashion-MNIST, inside the package",
            "embedded",
            *(3000, 500, 5000, 10, 1000, 32, 32),
            target="Coat",  # with T-shirt/top, one of three CIBA runs on HashNet failed
            class_names=FASHION,
            sha256="9e122d73439e5ad06738e608e61f53341622f7207643162d5322b40325bd53bd",
            pixels="d67a7ae05a881ad9ee264e4e3aed92ea4dd64bd1e731586a3249e30d8404a3e4",
        ),
        Protocol(
            "fashion-mini@96",
            "fashion-mini enlarged to 96 px, for backbones with published weights",
            "embedded",
            *(3000, 500, 5000, 10, 1000, 96, 96),
            target="Coat",
            class_names=FASHION,
            sha256="9e122d73439e5ad06738e608e61f53341622f7207643162d5322b40325bd53bd",
            pixels="8bc1296fd2ef00cb1f21acf0a3305656252714d06c5da7d974de3835e1642088",
        ),
        Protocol(
            "fashion-mnist",
            "Fashion-MNIST in full: 500 train and 100 query images per class, the rest is database",
            "fashion-mnist",
            *(5000, 1000, 64_000, 10, 1000, 32, 32),
            target="Coat",
            class_names=FASHION,
            sha256="ea7aab8c8c4cd2541335c58f732d3bc710c9293c463ec4f443498222709f6dc4",
            pixels="c742c28814c6abaac38fd7af3964e0adbbb7149b99ac9f00504ff2d2a2fccef9",
        ),
        Protocol(
            "cifar10@0",
            "CIFAR-10, 500 train and 100 query images per class, database without the train images",
            "cifar10",
            *(5000, 1000, 54_000, 10, None, 32, 32),
            class_names=CIFAR,
        ),
        Protocol(
            "cifar10@1",
            "CIFAR-10, train and query of cifar10@0, database with the train images",
            "cifar10",
            *(5000, 1000, 59_000, 10, None, 32, 32),
            class_names=CIFAR,
        ),
        Protocol(
            "cifar10@2",
            "CIFAR-10, its official split, the database is the train split",
            "cifar10",
            *(50_000, 10_000, 50_000, 10, None, 32, 32),
            class_names=CIFAR,
        ),
        Protocol(
            "imagenet100@hashnet",
            "ImageNet, the 100 classes and lists of HashNet's authors",
            "lists",
            *(13_000, 5000, 128_503, 100, 1000),
        ),
        Protocol(
            "imagenet100@ciba",
            "ImageNet, the 100 classes of DHTA and CIBA: 7 in common with HashNet's",
            "lists",
            *(10_000, 5000, None, 100, 1000),
            class_names=tuple(CIBA_IMAGENET.split()),
        ),
        Protocol(
            "coco",
            "MS-COCO, the lists of HashNet's authors, multi-label",
            "lists",
            *(10_000, 5000, 112_218, 80, 5000),
        ),
        Protocol(
            "nuswide_21",
            "NUS-WIDE, its 21 most frequent tags, multi-label",
            "lists",
            *(10_500, 2100, 193_734, 21, 5000),
        ),
        Protocol(
            "nuswide_81",
            "NUS-WIDE, 81 tags, multi-label; 1 131 of the queries carry no tag",
            "lists",
            *(10_000, 5000, None, 81, 5000),
        ),
        Protocol(
            "mirflickr",
            "MIRFlickr-25K, 38 tags, multi-label; 19 of the queries carry no tag",
            "lists",
            *(4000, 1000, 20_000, 38, None),
        ),
        Protocol(
            "places365-36",
            "Places365, the 36 classes of CIBA's second set, whose list was not published",
            "lists",
            *(None, None, None, 36, 1000),
        ),
        Protocol(
            "lists",
            "three text files: image path, then one 0/1 column per class",
            "lists",
            top_k=1000,
        ),
        Protocol(
            "folder",
            "one folder of images per class; 10 % of a class query, 30 % train, the rest database",
            "folder",
            top_k=1000,
        ),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UserError: the name is unknown; the message suggests similar ones.
    """
    if name not in PROTOCOLS:
        raise unknown("dataset", name, PROTOCOLS)
    return PROTOCOLS[name]
