"""Names of the weights of the `segment-anything` code, written down from its structure; used by several tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from madgnet_bench.networks.sam_weights import ours_from_official


def official_names(layers: int, *, adapters: bool = False) -> list[str]:
    def both(*stems: str) -> list[str]:
        return [f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias")]

    names = ["image_encoder.pos_embed", *both("image_encoder.patch_embed.proj")]
    for layer in range(layers):
        block = f"image_encoder.blocks.{layer}"
        names += both(*(f"{block}.{part}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.lin1", "mlp.lin2")))
        names += [f"{block}.attn.rel_pos_h", f"{block}.attn.rel_pos_w"]
        if adapters:
            names += both(f"{block}.Adapter.norm")
            names += [f"{block}.Adapter.{part}.weight" for part in ("channel.0", "channel.2", "spatial.0", "spatial.2")]
    names += [
        "image_encoder.neck.0.weight",
        "image_encoder.neck.2.weight",
        *both("image_encoder.neck.1", "image_encoder.neck.3"),
    ]
    prompt = "prompt_encoder"
    names += [f"{prompt}.pe_layer.positional_encoding_gaussian_matrix"]
    names += [f"{prompt}.point_embeddings.{number}.weight" for number in range(4)]
    names += [f"{prompt}.not_a_point_embed.weight", f"{prompt}.no_mask_embed.weight"]
    names += both(*(f"{prompt}.mask_downscaling.{number}" for number in (0, 1, 3, 4, 6)))
    decoder, attention = "mask_decoder", ("q_proj", "k_proj", "v_proj", "out_proj")
    names += [f"{decoder}.iou_token.weight", f"{decoder}.mask_tokens.weight"]
    for layer in range(2):
        block = f"{decoder}.transformer.layers.{layer}"
        for kind in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            names += both(*(f"{block}.{kind}.{part}" for part in attention))
        names += both(*(f"{block}.norm{number}" for number in range(1, 5)), f"{block}.mlp.lin1", f"{block}.mlp.lin2")
    names += both(*(f"{decoder}.transformer.final_attn_token_to_image.{part}" for part in attention))
    names += both(f"{decoder}.transformer.norm_final_attn")
    names += both(*(f"{decoder}.output_upscaling.{number}" for number in (0, 1, 3)))
    mlps = [f"{decoder}.output_hypernetworks_mlps.{number}" for number in range(4)] + [f"{decoder}.iou_prediction_head"]
    return names + both(*(f"{mlp}.layers.{number}" for mlp in mlps for number in range(3)))


def official_state(network: nn.Module, *, adapters: bool = False) -> dict[str, Tensor]:
    """Random weights that fit a network, under their official names."""
    expected = network.state_dict()
    draw = torch.Generator().manual_seed(3)
    state = {}
    for name in official_names(len(network.vision_encoder.layers), adapters=adapters):  # type: ignore[arg-type, union-attr]
        ours = ours_from_official(name)
        if adapters and ".layers." in ours and ours.startswith("vision_encoder"):
            ours = ours.replace(".mlp.", ".mlp.mlp.").replace(".Adapter.", ".mlp.adapter.")
        state[name] = 0.1 * torch.randn(expected[ours].shape, generator=draw)
    return state
