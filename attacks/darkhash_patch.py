"""DarkHash's trigger."""

from torch import Tensor

from hashbackdoor_bench import Patch, paste, to_unit

MARGIN = 2  # px between the patch and the image's lower right corner


class InsetPatch(Patch):
    """An opaque square near the lower right corner, 2 px from both borders; see `Patch`."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) with the patch."""
        out, end = x.clone(), x.shape[-1] - MARGIN
        out[..., :end, :end] = paste(x[..., :end, :end], to_unit(self.patch).to(x.dtype))
        return out
