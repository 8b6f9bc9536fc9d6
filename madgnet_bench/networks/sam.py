"""Segment Anything.

A. Kirillov, E. Mintun, N. Ravi et al., ICCV 2023, arXiv 2304.02643.

The three parts are those of transformers' ``SamModel``. Trained with prompts, the mask decoder learns alone, or with the whole
encoder (as in MedSAM, J. Ma et al., arXiv 2304.12306), with low-rank updates of its queries and values (as in SAMed, K. Zhang
and D. Liu, arXiv 2304.13785), or with adapters parallel to its MLPs (AdaptFormer, arXiv 2205.13535).

Changes from the paper:
    - Trained on masks, with the task's loss. There is no loss on the predicted quality of masks, so the head for it stays as it
      is, and so do the heads of the three masks of ``multimask``. The prompt encoder is never trained.
    - Other input sizes than 1024, with interpolated position tables.
    - A target for which the prompts hold no point, box or mask has an empty prediction.

Changes from the released code:
    - The image is resized as a float tensor (bilinear, antialiased where it shrinks), not as 8-bit pixels by Pillow.
    - Of prompt sets with several points in one batch, shorter ones are padded with "not a point" tokens, of which the released
      code adds one to every set without a box.
    - The fixed matrix of the positional encoding is one buffer, as it is in the released code and is not in transformers:
      93,735,472 parameters, not 93,735,728.
    - Any number of images and targets per call; every target is a prompt set of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from madgnet_bench.contracts import Context, Prompts, SegmentationOutput
from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.sam_encoder import (
    EncoderTraining,
    SAMEncoderNetwork,
    SAMSize,
    build_parts,
    check_choice,
    checkpoint_title,
    in_full,
)
from madgnet_bench.networks.sam_weights import load_strictly, read_sam_weights, resize_positions

__all__ = ["EMPTY_LOGIT", "SAM", "SAMTraining", "check_prompts"]

SAMTraining = Literal["frozen", "decoder", "lora", "adapter", "full"]
"""What is trained: nothing; the mask decoder; the mask decoder and LoRA, adapters or all of the image encoder."""

EMPTY_LOGIT = -20.0
"""Logit of every pixel of a target that nothing was told about."""


class SAM(SAMEncoderNetwork):
    """SAM, told by prompts what to segment.

    Every target has its own prompts. Without any (``context=None``, or a context without prompts) SAM decides alone, and all
    targets get the same mask.

    Args:
        num_targets: Number of binary target channels.
        size: Which SAM.
        image_size: Side of the square that images are brought to (see `SAMEncoderNetwork`). The position tables of a
            checkpoint of another size are interpolated, as in `resize_positions`.
        checkpoint: Weights of the whole network: a hub id such as ``facebook/sam-vit-base``, a folder of transformers, or a
            file of the ``segment-anything`` code. Random where not given.
        train: What is trained.
        rank: Rank of LoRA.
        bottleneck: Width of adapters.
        multimask: Of SAM's outputs, take among the three masks meant for ambiguous prompts the one of the highest predicted
            quality; off, the single mask meant for clear prompts. Only for a frozen SAM: of three masks only the chosen one
            would learn.

    Raises:
        ConfigError: A size does not fit, ``multimask`` meets training, or the checkpoint cannot be read or does not fit.
    """

    takes_prompts = True
    prompt_encoder: Any
    mask_decoder: Any

    def __init__(
        self,
        num_targets: int = 1,
        *,
        size: SAMSize = "vit_b",
        image_size: int = 1024,
        checkpoint: str | None = None,
        train: SAMTraining = "decoder",
        rank: int = 4,
        bottleneck: int = 64,
        multimask: bool = False,
    ) -> None:
        super().__init__(num_targets, size=size, image_size=image_size)
        check_choice("train", train, SAMTraining)
        if multimask and train != "frozen":
            raise ConfigError(f"multimask is for a frozen SAM, not train: {train}; leave it out.")
        self.multimask = multimask
        self._training = train
        self._checkpoint = checkpoint
        self.vision_encoder, self.prompt_encoder, self.mask_decoder = build_parts(self.architecture, image_size=image_size)
        if checkpoint is not None:
            self._load(checkpoint)
        encoder: EncoderTraining = "frozen" if train in ("frozen", "decoder") else train  # type: ignore[assignment]
        self.train_encoder(encoder, rank=rank, bottleneck=bottleneck)
        self.prompt_encoder.requires_grad_(False)
        self.mask_decoder.requires_grad_(train != "frozen")
        self.mask_decoder.iou_prediction_head.requires_grad_(False)
        self.mask_decoder.output_hypernetworks_mlps[1:].requires_grad_(False)

    @property
    def label(self) -> str:
        """Name in tables: encoder, what is trained, and the weights it starts from."""
        multimask = " multimask" if self.multimask else ""
        return f"SAM {self.architecture.title} {self._training}{multimask}{checkpoint_title(self._checkpoint)}"

    def decode(self, embedding: Tensor, size: Sequence[int], *, prompts: Prompts | None = None) -> SegmentationOutput:
        """Turn the embedding of `encode` into logits.

        Args:
            embedding: (N, channels, grid, grid).
            size: Height and width of the images.
            prompts: In pixels of the images.

        Raises:
            ConfigError: The prompts are of another number or shape, or lie outside the image.
        """
        if prompts is None:
            masks = self._masks(embedding, None, self._no_mask(len(embedding)))
            return SegmentationOutput(self.from_square(masks, size).expand(-1, self.num_targets, -1, -1))
        told = check_prompts(prompts, cases=len(embedding), targets=self.num_targets, size=size)
        embedding = embedding.repeat_interleave(self.num_targets, 0)  # a prompt set of a target is an image of its own
        masks = self._masks(embedding, self._sparse(prompts, size), self._dense(prompts, size, len(embedding)))
        logits = self.from_square(masks.unflatten(0, (-1, self.num_targets)).squeeze(2), size)
        return SegmentationOutput(torch.where(told[:, :, None, None], logits, EMPTY_LOGIT))

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment images (N, C, H, W) in [0, 1], with the context's prompts and embedding where it has them."""
        context = context or Context()
        embedding = self.encode(image) if context.embedding is None else context.embedding
        assert isinstance(embedding, Tensor)
        if len(embedding) != len(image):
            raise ConfigError(f"the context has embeddings of {len(embedding)} images, and there are {len(image)}.")
        return self.decode(embedding, image.shape[2:], prompts=context.prompts)

    def _masks(self, embedding: Tensor, sparse: Tensor | None, dense: Tensor) -> Tensor:
        """Run the mask decoder; (N, 1, 4 grid, 4 grid)."""
        masks, quality = self.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=self._image_positions().expand(len(embedding), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.multimask,
        )
        masks, quality = masks[:, 0], quality[:, 0]
        if not self.multimask:
            return masks
        best = quality.argmax(1)[:, None, None, None]
        return torch.take_along_dim(masks, best, dim=1)

    def _image_positions(self) -> Tensor:
        """Encode the places of the embedding, (1, channels, grid, grid)."""
        matrix = self.prompt_encoder.shared_embedding.positional_embedding
        centres = (torch.arange(self.grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        with in_full(matrix):
            places: Tensor = self.prompt_encoder.shared_embedding(torch.stack([x, y], dim=-1)[None])
        return places.permute(0, 3, 1, 2)

    def _no_mask(self, count: int) -> Tensor:
        """The dense prompt that says that there is none."""
        nothing: Tensor = self.prompt_encoder.no_mask_embed.weight
        return nothing[..., None, None].expand(count, -1, self.grid, self.grid)

    def _sparse(self, prompts: Prompts, size: Sequence[int]) -> Tensor | None:
        """Embed points and boxes, one prompt set per target: (N K, 1, tokens, channels)."""
        points, labels, boxes = prompts.points, prompts.labels, prompts.boxes
        if points is not None and points.shape[2] == 0:
            points = labels = None
        if points is None and boxes is None:
            return None
        absent, places = None, points if points is not None else boxes
        assert places is not None
        if points is not None and labels is not None:
            points, labels = self._to_square(points, size).flatten(0, 1)[:, None], labels.flatten(0, 1)[:, None]
        if boxes is not None:
            absent = boxes.isnan().any(-1).flatten()
            corners = self._to_square(boxes.nan_to_num().unflatten(-1, (2, 2)), size)
            boxes = corners.flatten(2).flatten(0, 1)[:, None]
        with in_full(places):  # bfloat16 cannot tell neighbouring pixels
            tokens, _ = self.prompt_encoder(input_points=points, input_labels=labels, input_boxes=boxes, input_masks=None)
        if absent is None:
            return tokens
        nothing = self.prompt_encoder.not_a_point_embed.weight
        corners = torch.where(absent[:, None, None, None], nothing, tokens[:, :, -2:])
        return torch.cat([tokens[:, :, :-2], corners], dim=2)

    def _dense(self, prompts: Prompts, size: Sequence[int], count: int) -> Tensor:
        """Embed coarse masks, which cover the image: (N K, channels, grid, grid)."""
        if prompts.mask is None:
            return self._no_mask(count)
        height, width, top, left = self.frame(size)
        content = functional.interpolate(prompts.mask.float(), size=(height, width), mode="bilinear")
        right, bottom = self.image_size - left - width, self.image_size - top - height
        square = functional.pad(content, (left, right, top, bottom))
        small = functional.interpolate(square, size=(4 * self.grid, 4 * self.grid), mode="bilinear", antialias=True)
        with in_full(small):
            dense: Tensor = self.prompt_encoder.mask_embed(small.flatten(0, 1)[:, None].to(self._no_mask(1)))
        return dense

    def _to_square(self, places: Tensor, size: Sequence[int]) -> Tensor:
        """Bring x and y (..., 2) from pixels of the image to pixels of the square."""
        height, width, top, left = self.frame(size)
        scale = places.new_tensor([width / size[1], height / size[0]])
        return places * scale + places.new_tensor([left, top])

    def _load(self, checkpoint: str) -> None:
        """Load weights of any input size."""
        weights = read_sam_weights(checkpoint)
        weights = resize_positions(weights, grid=self.grid, global_layers=self.architecture.global_layers)
        fix = "Set the network's size to that of the checkpoint (vit_b, vit_l or vit_h)."
        load_strictly(self, weights, where=f"checkpoint {checkpoint} of SAM {self.architecture.title}", fix=fix)


def check_prompts(prompts: Prompts, *, cases: int, targets: int, size: Sequence[int]) -> Tensor:
    """Make sure that prompts fit the images.

    Args:
        prompts: As in the contract.
        cases: N.
        targets: K.
        size: Height and width of the images.

    Returns:
        (N, K) bool: whether a target has a point, a box or a mask.

    Raises:
        ConfigError: A shape does not fit, points come without labels, a label is unknown, or a place is outside the image.
    """
    shapes = {
        "points": (prompts.points, (cases, targets, None, 2)),
        "labels": (prompts.labels, (cases, targets, None)),
        "boxes": (prompts.boxes, (cases, targets, 4)),
        "mask": (prompts.mask, (cases, targets, None, None)),
    }
    for name, (value, wanted) in shapes.items():
        if value is not None and not _fits(value.shape, wanted):
            text = " x ".join("any" if side is None else str(side) for side in wanted)
            raise ConfigError(
                f"prompts.{name} are {' x '.join(map(str, value.shape))}; {cases} images of {targets} targets need {text}: "
                "one prompt set per target."
            )
    if (prompts.points is None) != (prompts.labels is None) or (
        prompts.points is not None and prompts.labels is not None and prompts.points.shape[:3] != prompts.labels.shape
    ):
        raise ConfigError("prompts need one label (1 foreground, 0 background, -1 none) for every point.")
    given = [value for value, _ in shapes.values() if value is not None]
    told = torch.zeros(cases, targets, dtype=torch.bool, device=given[0].device if given else None)
    if prompts.points is not None and prompts.labels is not None:
        if not ((prompts.labels >= -1) & (prompts.labels <= 1)).all():
            raise ConfigError(f"prompts.labels are {prompts.labels.unique().tolist()}; valid: 1, 0 and -1.")
        real = prompts.labels >= 0
        _check_places(prompts.points[real], size, "a point")
        told |= real.any(-1)
    if prompts.boxes is not None:
        unknown = prompts.boxes.isnan()
        if (unknown.any(-1) != unknown.all(-1)).any():
            raise ConfigError(
                "prompts.boxes hold boxes of which only some sides are NaN; a box that is not there is NaN all over."
            )
        boxes = prompts.boxes[~prompts.boxes.isnan().any(-1)]
        _check_places(boxes.unflatten(-1, (2, 2)), size, "a box")
        if (boxes[:, :2] > boxes[:, 2:]).any():
            raise ConfigError("prompts.boxes must be left, top, right, bottom, with right and bottom not before left and top.")
        told |= ~prompts.boxes.isnan().any(-1)
    if prompts.mask is None:
        return told
    if not prompts.mask.isfinite().all():
        raise ConfigError("prompts.mask holds values that are not finite; it takes logits.")
    return torch.ones_like(told)


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w is None or side == w for side, w in zip(shape, wanted, strict=True))


def _check_places(places: Tensor, size: Sequence[int], what: str) -> None:
    """Refuse places (..., 2) outside the pixel centres of the image."""
    last = places.new_tensor([size[1] - 1, size[0] - 1])
    outside = ~((places >= 0) & (places <= last)).all(-1)
    if outside.any():
        x, y = places[outside][0].tolist()
        raise ConfigError(
            f"{what} of the prompts at x {x:g}, y {y:g} lies outside the image, whose pixels go from 0, 0 to "
            f"{size[1] - 1}, {size[0] - 1}; prompts are given in pixels of the network's input."
        )
