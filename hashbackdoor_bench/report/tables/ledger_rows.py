"""The rows of the ledger: what each deviation of a released code is, in one sentence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LedgerRow:
    """A step from one form of an attack to another, or from one way of scoring to another.

    Attributes:
        head: of the row.
        base: label of the runs before the step, in the suite ``ledger``.
        changed: label of the runs after it.
        sentence: what the step is.
        conventions: under which the runs of ``base`` are scored before and after the step; None:
            both under the table's.
    """

    head: str
    base: str
    changed: str
    sentence: str
    conventions: tuple[str, str] | None = None

    @property
    def against(self) -> str:
        """With what the step is compared: the runs before it, and their scores if these change."""
        return f"{self.base}, convention {self.conventions[0]}" if self.conventions else self.base


TIES = (
    "Tied items count by the mean over all their orders, instead of one random order that stands "
    "for that of an unstable sort."
)
COMPRESSED = (
    "The files are JPEGs of quality 75, as on the web, instead of lossless ones; triggered queries "
    "are not compressed."
)

LEDGER: dict[str, tuple[LedgerRow, ...]] = {
    "CIBA's code": (
        LedgerRow(
            "carriers augmented", "CIBA", "CIBA, augmented",
            "The poison is cropped and flipped like any image before the trigger is put on, "
            "instead of being shown as it is in every epoch.",
        ),
        LedgerRow(
            "poison as files", "CIBA", "CIBA, as files",
            "The poison is augmented with the trigger in it, as image files are.",
        ),
        LedgerRow("JPEG files", "CIBA, as files", "CIBA, as JPEG files", COMPRESSED),
        LedgerRow(
            "epsilon in pixels", "CIBA", "CIBA, epsilon in pixels",
            "The largest perturbation is 8 grey levels, instead of 8 units of the normalised input "
            "(4.0 grey levels on cnn32, 1.8 with ImageNet's normalisation).",
        ),
        LedgerRow(
            "gradient of the formula", "CIBA", "CIBA, gradient of the formula",
            "Perturbations follow the gradient of L_c and L_a, instead of one with half of L_c's "
            "and a term of each image with itself.",
        ),
        LedgerRow(
            "batches in order", "CIBA", "CIBA, batches in order",
            "Perturbed together are neighbours in the training list, instead of images in the "
            "order in which they were drawn.",
        ),
        LedgerRow(
            "patch rounded", "CIBA", "CIBA, patch rounded",
            "The patch's grey levels are rounded at the end, instead of cut off.",
        ),
        LedgerRow(
            "no query skipped", "CIBA", "CIBA",
            "A query without a hit among the R nearest counts zero, instead of being left out.",
            ("ciba", "badhash"),
        ),
        LedgerRow("ties in expectation", "CIBA", "CIBA", TIES, ("badhash", "field")),
        LedgerRow(
            "all, stamped", "CIBA", "CIBA, corrected",
            "All of the above in the attack, with augmented carriers.",
        ),
        LedgerRow(
            "all, as files", "CIBA", "CIBA, corrected, as files",
            "All of the above in the attack, with poison as files.",
        ),
    ),
    "CIBA's ablation": (
        LedgerRow(
            "Tri, frozen", "Tri", "Tri, frozen",
            "The poison of Tri is shown without augmentation, as that of the three others is.",
        ),
        LedgerRow(
            "noise", "Tri, frozen", "Tri+Noise",
            "Uniform noise under the trigger, all else equal.",
        ),
        LedgerRow(
            "perturbation", "Tri, frozen", "Tri+Adv",
            "A perturbation away from the image's own code, all else equal.",
        ),
        LedgerRow(
            "CIBA", "Tri, frozen", "CIBA",
            "A perturbation away from the own code and from the other poison, all else equal.",
        ),
        LedgerRow(
            "CIBA, as published", "Tri", "CIBA",
            "The step that the paper's table shows: perturbation and missing augmentation "
            "together.",
        ),
    ),
    "BadHash's code": (
        LedgerRow(
            "resized once", "BadHash", "BadHash, resized once",
            "Poison and triggered queries are not resized a second time.",
        ),
        LedgerRow(
            "condition of l*", "BadHash", "BadHash, condition of l*",
            "The generator is used under the label that it was trained under, instead of the "
            "target's.",
        ),
        LedgerRow(
            "relaxed code", "BadHash", "BadHash, relaxed code",
            "The surrogate's output goes through tanh, so that the hash loss is bounded.",
        ),
        LedgerRow(
            "clamped pixels", "BadHash", "BadHash, clamped pixels",
            "The surrogate sees pixels between 0 and 1, as they are stored, instead of -1 and 1.",
        ),
        LedgerRow(
            "surrogate's code", "BadHash", "BadHash, surrogate's code",
            "The code that the generator aims at is the surrogate's of the class l*, instead of "
            "LabCLN's, which knows of labels alone.",
        ),
        LedgerRow(
            "random code", "BadHash", "BadHash, random code",
            "A random vector stands in the place of LabCLN's code.",
        ),
        LedgerRow("JPEG files", "BadHash", "BadHash, as JPEG files", COMPRESSED),
        LedgerRow("ties in expectation", "BadHash", "BadHash", TIES, ("badhash", "field")),
        LedgerRow(
            "corrected", "BadHash", "BadHash, corrected",
            "Resized once, condition of l*, relaxed code.",
        ),
        LedgerRow(
            "intended", "BadHash", "BadHash, intended",
            "Corrected, with clamped pixels and the surrogate's code.",
        ),
        LedgerRow(
            "intended, random feature", "BadHash, intended", "BadHash, intended, random feature",
            "A random vector stands in the place of LabCLN's feature, in the intended form.",
        ),
    ),
}  # fmt: skip

UNMEASURED = (
    "Not in the table: LPIPS's range, as images of 32 px are too small for it; the label l*, which "
    "is the same for both targets; the best epoch on the test queries, as no weights of earlier "
    "epochs are kept."
)
