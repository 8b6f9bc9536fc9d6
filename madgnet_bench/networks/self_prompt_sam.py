"""Self-prompting Large Vision Models for Few-Shot Medical Image Segmentation.

Q. Wu, Y. Zhang, M. Elbatel, DART workshop at MICCAI 2023, arXiv 2308.07624.

A logistic regression on the embeddings of a few training images predicts a coarse mask at the embedding's resolution; its
deepest point and its box are the prompts of a frozen SAM. Nothing is trained by gradients.

Changes from the paper:
    - One regression per target. It is solved with torch's L-BFGS, to the solution of scikit-learn's default options (L2 penalty
      with C = 1, an intercept that is not penalised).

Changes from the released code:
    - There, the mask is squeezed to the square of the embedding whatever the image's shape: misaligned for every image that is
      not square. Here it lies where the image lies, and what is padding is left out of the regression.
    - The box is widened by a fixed number of pixels (``margin``), where the released code draws 0 to 19 without a seed.
    - That number, and the 5 x 5 of opening, are pixels of the image there, whatever its size. Here they are those of an image
      whose longest side is 1024, and scaled to the image's.
    - The deepest point is the farthest from the mask's edge and from the image's; there, what lies outside the image does not
      count as background, and a mask that touches the edge may have its point on it.
    - An image whose coarse mask is empty has an empty prediction; the released cross-validation leaves it out of the mean.
    - The box comes from the opened coarse mask, as there, and from the raw one where opening leaves nothing.
    - The encoder runs once per image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from madgnet_bench.contracts import Context, Prompts, SegmentationOutput
from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.prompts import Mask, deepest_point, tight_box
from madgnet_bench.networks.sam import SAM
from madgnet_bench.networks.sam_encoder import SAMSize, checkpoint_title, in_full

__all__ = ["SelfPromptSAM", "fit_logistic_regression"]


class SelfPromptSAM(SAM):
    """A frozen SAM that prompts itself; `learn` must see a few images with masks first.

    Args:
        num_targets: Number of binary target channels.
        size: Which SAM.
        image_size: Side of the square that images are brought to.
        encoder_checkpoint: Weights of a whole SAM, as the ``checkpoint`` of `SAM`; with them alone the network is not trained.
        point: Tell SAM the deepest point of the coarse mask.
        box: Tell SAM the box of the coarse mask.
        margin: Pixels, at an image side of 1024, by which the box is widened on each side; the mean of the released draw.

    Raises:
        ConfigError: Neither point nor box, a negative margin, or what `SAM` raises.
    """

    takes_prompts = False  # it makes its own
    regression_weight: Tensor
    regression_bias: Tensor
    learned: Tensor

    def __init__(
        self,
        num_targets: int = 1,
        *,
        size: SAMSize = "vit_b",
        image_size: int = 1024,
        encoder_checkpoint: str | None = None,
        point: bool = True,
        box: bool = True,
        margin: float = 9.5,
    ) -> None:
        super().__init__(num_targets, size=size, image_size=image_size, checkpoint=encoder_checkpoint, train="frozen")
        if not (point or box) or margin < 0:
            raise ConfigError("SelfPromptSAM needs point, box or both, and a margin of at least 0.")
        self.point, self.box, self.margin = point, box, margin
        self.register_buffer("regression_weight", torch.zeros(num_targets, self.architecture.embedding))
        self.register_buffer("regression_bias", torch.zeros(num_targets))
        self.register_buffer("learned", torch.tensor(False))

    @property
    def label(self) -> str:
        """Name in tables: encoder, prompts and weights."""
        told = "+".join(name for name, chosen in (("point", self.point), ("box", self.box)) if chosen)
        return f"Self-prompt SAM {self.architecture.title} {told}{checkpoint_title(self._checkpoint)}"

    @torch.no_grad()
    def learn(self, image: Tensor, mask: Tensor, *, present: Tensor) -> None:
        """Fit the regressions.

        Args:
            image: (N, C, H, W) in [0, 1]: the few training images.
            mask: (N, K, H, W) in {0, 1}.
            present: (N, K) bool, whether an image has a mask of the target.

        Raises:
            ConfigError: The images show no pixel of a target, or no other, at the resolution of the embedding.
        """
        embedding = torch.cat([self.encode(one) for one in image.split(1)]).flatten(2).double()
        inside = self._to_grid(torch.ones_like(mask[:, :1]))[:, 0]
        labels = self._to_grid(mask)
        for target in range(self.num_targets):
            chosen = inside & present[:, target, None]
            features, truth = embedding.transpose(1, 2)[chosen], labels[:, target][chosen]
            if not truth.any() or truth.all():
                raise ConfigError(
                    f"the {len(image)} training images of Self-prompt SAM hold {'only' if truth.any() else 'no'} pixels of "
                    f"target {target + 1} at the {self.grid} x {self.grid} of the embedding; give it more images, or a larger "
                    "image_size."
                )
            weight, bias = fit_logistic_regression(features, truth)
            self.regression_weight[target], self.regression_bias[target] = weight.to(self.regression_weight), bias
        self.learned.fill_(True)

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment images (N, C, H, W) in [0, 1]; of the context, only the embedding is used.

        Before `learn`, the coarse mask is that of all zeros: empty.
        """
        embedding = self.encode(image) if context is None or context.embedding is None else context.embedding
        assert isinstance(embedding, Tensor)
        return self.decode(embedding, image.shape[2:], prompts=self.find_prompts(embedding, image.shape[2:]))

    def coarse_masks(self, embedding: Tensor, size: Sequence[int]) -> Tensor:
        """Predict the masks of all targets from an embedding, at the images' size by the nearest cell; (N, K, H, W) bool."""
        with in_full(embedding):
            score = torch.einsum("nchw,kc->nkhw", embedding.to(self.regression_weight), self.regression_weight)
        grid = (score + self.regression_bias[:, None, None] > 0).float()
        height, width, top, left = self.frame(size)
        square = functional.interpolate(grid, size=(self.image_size, self.image_size), mode="nearest-exact")
        return (
            functional.interpolate(square[..., top : top + height, left : left + width], size=tuple(size), mode="nearest-exact")
            > 0
        )

    def find_prompts(self, embedding: Tensor, size: Sequence[int]) -> Prompts:
        """Point and box of every coarse mask, in pixels of the images."""
        coarse = self.coarse_masks(embedding.detach(), size).cpu().numpy()
        told = [[self._prompt(mask) for mask in row] for row in coarse]
        points, labels, boxes = (
            torch.from_numpy(np.array([[target[part] for target in row] for row in told])).to(embedding.device)
            for part in range(3)
        )
        if not self.point:
            return Prompts(boxes=boxes)
        return Prompts(points=points, labels=labels, boxes=boxes if self.box else None)

    def _prompt(self, mask: Mask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Point, label and box of one coarse mask."""
        if not mask.any():
            return np.zeros((1, 2), np.float32), np.array([-1]), np.full(4, np.nan, np.float32)
        opened = _opened(mask, max(mask.shape) / 1024)
        margin = self.margin * max(mask.shape) / 1024
        widened = tight_box(opened if opened.any() else mask) + np.array([-margin, -margin, margin, margin], np.float32)
        last = np.array([mask.shape[1] - 1, mask.shape[0] - 1] * 2, np.float32)
        return deepest_point(mask)[None], np.array([1]), widened.clip(0, last).astype(np.float32)

    def _to_grid(self, mask: Tensor) -> Tensor:
        """Bring masks (N, K, H, W) to the cells of the embedding, by the nearest pixel of the square; (N, K, cells) bool."""
        height, width, top, left = self.frame(mask.shape[2:])
        content = functional.interpolate(mask, size=(height, width), mode="nearest-exact")
        right, bottom = self.image_size - left - width, self.image_size - top - height
        square = functional.pad(content, (left, right, top, bottom))
        return (functional.interpolate(square, size=(self.grid, self.grid), mode="nearest-exact") >= 0.5).flatten(2)


def fit_logistic_regression(features: Tensor, labels: Tensor, *, c: float = 1.0) -> tuple[Tensor, Tensor]:
    """Minimise |w|^2 / 2 + c * sum of log losses over the weights w and the intercept, which is not penalised.

    Args:
        features: (M, D) float64.
        labels: (M,) bool.
        c: Inverse strength of the penalty.

    Returns:
        (D,) weights and the intercept.
    """
    with torch.enable_grad():
        weight = features.new_zeros(features.shape[1], requires_grad=True)
        bias = features.new_zeros((), requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=1000, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )
        target = labels.to(features)

        def loss() -> Tensor:
            solver.zero_grad()
            error = functional.binary_cross_entropy_with_logits(features @ weight + bias, target)
            value = error + weight.square().sum() / (2 * c * len(features))
            value.backward()
            return value

        solver.step(loss)
    return weight.detach(), bias.detach()


def _opened(mask: Mask, scale: float) -> Mask:
    """Three erosions and five dilations by 5 x 5 pixels at an image side of 1024, scaled to this image's."""
    side = max(1, 2 * round(2 * scale) + 1)
    if side == 1:
        return mask
    square = np.ones((side, side))
    eroded = ndimage.binary_erosion(mask, square, iterations=3, border_value=1)
    opened: Mask = ndimage.binary_dilation(eroded, square, iterations=5)
    return opened
