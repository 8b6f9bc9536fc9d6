"""Small trained modules beside the frozen layers of a transformer."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["AdaptedMLP", "BottleneckAdapter", "SpatialChannelAdapter"]


class AdaptedMLP(nn.Module):
    """A block's MLP with an adapter parallel to it: MLP(x) + adapter(x), x being the normalised tokens.

    Args:
        mlp: The block's MLP.
        adapter: Maps tokens (N, H, W, C) to tokens of the same shape.
    """

    def __init__(self, mlp: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Add both branches."""
        return self.mlp(x) + self.adapter(x)


class BottleneckAdapter(nn.Module):
    """Linear down, ReLU, linear up, scaled: the adapter of AdaptFormer (S. Chen et al., NeurIPS 2022, arXiv 2205.13535).

    The second layer starts at zero, so that the block starts as it was.

    Args:
        width: Channels of the tokens.
        bottleneck: Channels between the two layers.
        scale: Factor of the output; the paper's is 0.1.

    Raises:
        ValueError: A width is below 1.
    """

    def __init__(self, width: int, *, bottleneck: int = 64, scale: float = 0.1) -> None:
        super().__init__()
        if min(width, bottleneck) < 1:
            raise ValueError(f"width and bottleneck must be at least 1, not {width} and {bottleneck}")
        self.scale = scale
        self.down = nn.Linear(width, bottleneck)
        self.activation = nn.ReLU()
        self.up = nn.Linear(bottleneck, width)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Adapt tokens (..., width)."""
        return self.scale * self.up(self.activation(self.down(x)))


class SpatialChannelAdapter(nn.Module):
    """The adapter of SAM-Med2D (J. Cheng et al., arXiv 2308.16184): a channel gate, then a convolution down and up.

    A gate (global mean, linear to a quarter of the channels, ReLU, linear back, sigmoid) multiplies the tokens; a 3x3
    convolution of stride 2 and a transposed 4x4 one of stride 2, each with a ReLU, see their neighbourhood; the input is added
    and the sum normalised. No layer but the last has a bias. Nothing starts at zero: before it is trained, the output has unit
    deviation.

    Args:
        width: Channels C of the tokens, a multiple of 4.

    Raises:
        ValueError: ``width`` is no multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 4 or width < 4:
            raise ValueError(f"width must be a multiple of 4, not {width}")
        self.norm = nn.LayerNorm(width)
        self.channel = nn.Sequential(
            nn.Linear(width, width // 4, bias=False), nn.ReLU(), nn.Linear(width // 4, width, bias=False), nn.Sigmoid()
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, kernel_size=4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Adapt tokens (N, H, W, C).

        Raises:
            ValueError: H or W is odd: the map that comes back from the two convolutions would be larger.
        """
        if x.shape[1] % 2 or x.shape[2] % 2:
            raise ValueError(f"a grid of {x.shape[1]} x {x.shape[2]} tokens is odd; choose a size of an even number of patches")
        planes = x.permute(0, 3, 1, 2)
        gate = self.channel(planes.mean(dim=(2, 3)))
        planes = self.spatial(planes * gate[:, :, None, None])
        return self.norm(x + planes.permute(0, 2, 3, 1))
