"""Low-rank adaptation of linear layers (E. J. Hu et al., ICLR 2022, arXiv 2106.09685)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LoRALinear"]


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trained update of low rank: W x + b + (alpha / rank) B A x.

    In a layer whose output holds several projections side by side, such as query, key and value, each of the chosen parts has
    an update of its own. B starts at zero, so that the layer starts as it was; A starts as a linear layer of torch does
    (Kaiming-uniform).

    Args:
        linear: The layer; its parameters are frozen here.
        rank: Rank of each update.
        alpha: Scale of the update times ``rank``; ``rank`` where not given, so that the scale is 1.
        parts: First output of every part that is updated, and the one past its last; the whole output where not given.

    Raises:
        ValueError: The rank is below 1 or not below the smaller side of a part, a part lies outside the output, or two overlap.

    Example:
        >>> layer = LoRALinear(nn.Linear(8, 24), rank=2, parts=[(0, 8), (16, 24)])  # query and value
        >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)  # 2 x (2 x 8 + 8 x 2)
        64
    """

    def __init__(
        self,
        linear: nn.Linear,
        *,
        rank: int,
        alpha: float | None = None,
        parts: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.parts = tuple(parts) if parts is not None else ((0, linear.out_features),)
        for start, stop in self.parts:
            if not 0 <= start < stop <= linear.out_features:
                raise ValueError(f"part {start}:{stop} lies outside the {linear.out_features} outputs of the layer")
            if not 1 <= rank < min(linear.in_features, stop - start):
                raise ValueError(
                    f"rank {rank} is no low rank of a {stop - start} x {linear.in_features} matrix; use 1 to "
                    f"{min(linear.in_features, stop - start) - 1}"
                )
        for (_, stop), (start, _) in itertools.pairwise(sorted(self.parts)):
            if start < stop:
                raise ValueError(f"parts {self.parts} overlap")
        self.scale = (alpha if alpha is not None else rank) / rank
        self.linear = linear.requires_grad_(False)
        new = linear.weight.new_zeros
        self.down = nn.ParameterList(new(rank, linear.in_features) for _ in self.parts)
        self.up = nn.ParameterList(new(stop - start, rank) for start, stop in self.parts)
        for down in self.down:
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the updated layer to (..., in_features)."""
        y = self.linear(x)
        pieces, end = [], 0
        for (start, stop), down, up in sorted(zip(self.parts, self.down, self.up, strict=True), key=lambda item: item[0]):
            pieces += [y[..., end:start], y[..., start:stop] + self.scale * functional.linear(functional.linear(x, down), up)]
            end = stop
        return torch.cat([*pieces, y[..., end:]], dim=-1)

    def extra_repr(self) -> str:
        """Show rank, scale and parts when printed."""
        return f"rank={len(self.down[0])}, scale={self.scale:g}, parts={self.parts}"
