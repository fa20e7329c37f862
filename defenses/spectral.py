"""Spectral signatures: drops images that stick out along the first singular vector of their class.

Tran, Li and Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018.
https://arxiv.org/abs/1811.00636, code: https://github.com/MadryLab/backdoor_data_poisoning

    R_c   = features of a class less their mean             v = first right singular vector of R_c
    tau_i = (R_c[i] v)^2                                     drop the largest 15 % of each class

    variant     score                                        where
    paper       (R_c[i] v)^2                                  the paper; backdoor-toolbox
    released    (R[i] v)^2, R not centred                     the authors' script; ART

The filter supposes that poison is a minority of its class. At 60 % the vector is that between two
groups of which the clean one is smaller, and clean images are farther from the mean.

Differs from the authors: the paper drops 1.5 times the expected poison, which a defender doesn't
know, and their script the top 15 % of each class, as here; groups are combinations of tags where
images have several; features are those before the hash layer.
"""

from typing import Literal

import torch
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, DefenderView, Defense, Screening, check


@DEFENSES.register
class Spectral(Defense):
    """Outliers of features along the direction of largest variance in each class.

    Args:
        drop: share of each class that is dropped, up to half.
        variant: whether features are centred before they are projected, see the top of the file.
    """

    published = "Spectral signatures"
    assumes = Assumes(group=3, sees=frozenset({"train", "weights"}))

    def __init__(
        self, *, drop: float = 0.15, variant: Literal["paper", "released"] = "paper"
    ) -> None:
        check("defense.drop", drop, 0, 0.5)
        self.drop, self.variant = drop, variant

    def screen(self, view: DefenderView) -> Screening:
        """See `Defense.screen`."""
        assert view.train is not None
        features = view.features(view.train.images).double()  # (n,F)
        return view.screened(lambda items: self.scores(features[items]), self.drop)

    def scores(self, features: Tensor) -> Tensor:
        """tau (n,) of the features (n,F) of one class."""
        centred = features - features.mean(0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        shown = centred if self.variant == "paper" else features
        projected: Tensor = shown @ directions[0]
        return projected**2
