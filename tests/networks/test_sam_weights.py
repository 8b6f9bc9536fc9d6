from __future__ import annotations

import collections
import os

import pytest
import torch
from official_sam import official_names, official_state

from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.sam import SAM
from madgnet_bench.networks.sam_weights import load_strictly, ours_from_official, read_sam_weights, resize_positions


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SAM(size="tiny", image_size=64)


def test_official_names_become_ours_one_to_one():
    with torch.device("meta"):
        expected = SAM().state_dict()
    names = official_names(12)
    assert len(names) == len(set(names)) == 314
    assert sorted(map(ours_from_official, names)) == sorted(expected)


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"model": state}, lambda state: {"state_dict": state, "n": 1}]
)
def test_a_file_of_the_official_code(wrap, tmp_path, network):
    state = official_state(network)
    torch.save(wrap(state), tmp_path / "sam.pth")
    weights = read_sam_weights(str(tmp_path / "sam.pth"))
    assert weights.keys() == network.state_dict().keys()
    name = "mask_decoder.output_hypernetworks_mlps.2.layers.1.weight"
    assert torch.equal(weights["mask_decoder.output_hypernetworks_mlps.2.layers.0.weight"], state[name])


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_of_transformers(safe, tmp_path, network):
    from transformers import SamConfig, SamModel

    size = {"hidden_size": 32, "image_size": 64}
    vision = {"output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "global_attn_indexes": [1]}
    torch.manual_seed(1)
    model = SamModel(
        SamConfig(
            vision_config=size | vision | {"window_size": 3, "num_pos_feats": 16},
            prompt_encoder_config=size,
            mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32},
        )
    )
    if safe:
        model.save_pretrained(tmp_path)
    else:
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = SAM(size="tiny", image_size=64, checkpoint=str(tmp_path))
    matrix = model.shared_image_embedding.positional_embedding
    assert torch.equal(loaded.prompt_encoder.shared_embedding.positional_embedding, matrix)
    assert torch.equal(loaded.vision_encoder.layers[1].mlp.lin1.weight, model.vision_encoder.layers[1].mlp.lin1.weight)


def test_position_tables_of_another_size(tmp_path):
    torch.manual_seed(0)
    large = SAM(size="tiny", image_size=96)
    state = large.state_dict()
    row = torch.linspace(0, 1, 6)
    state["vision_encoder.pos_embed"] = row[None, None, :, None].expand(1, 6, 6, 32).clone()
    state["vision_encoder.layers.1.attn.rel_pos_h"] = torch.linspace(-1, 1, 11)[:, None].expand(11, 16).clone()
    torch.save(state, tmp_path / "large.pt")
    small = SAM(size="tiny", image_size=48, checkpoint=str(tmp_path / "large.pt"))
    expected = torch.tensor([0.1, 0.5, 0.9])  # the means of pairs of neighbours
    torch.testing.assert_close(small.vision_encoder.pos_embed[0, 1, :, 5], expected)
    relative = small.vision_encoder.layers[1].attn.rel_pos_h[:, 0]
    assert len(relative) == 5 and torch.equal(relative.sort().values, relative)
    torch.testing.assert_close(relative, -relative.flip(0))
    assert torch.equal(small.vision_encoder.layers[0].attn.rel_pos_h, large.vision_encoder.layers[0].attn.rel_pos_h)
    same = resize_positions(state, grid=6, global_layers=(1,))
    assert all(same[name] is state[name] for name in state)


def test_weights_of_another_sam_are_refused_by_name(tmp_path, network):
    torch.save(official_state(network), tmp_path / "tiny.pth")
    with (
        pytest.raises(ConfigError, match=r"tiny\.pth of SAM ViT-B does not fit: of 314 tensors, \d+ missing .*Set"),
        torch.device("meta"),
    ):
        SAM(image_size=64, checkpoint=str(tmp_path / "tiny.pth"))


def test_the_message_tells_missing_unexpected_and_sizes(network):
    state = dict(network.state_dict())
    del state["mask_decoder.iou_token.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["vision_encoder.pos_embed"] = torch.zeros(1, 64, 64, 32)
    with pytest.raises(ConfigError) as caught:
        load_strictly(network, state, where="file x", fix="Take another.")
    text = str(caught.value)
    assert "1 missing (mask_decoder.iou_token.weight)" in text and "1 unexpected (extra.weight)" in text
    assert "vision_encoder.pos_embed is 1x64x64x32 in the file and 1x4x4x32 in the network" in text
    assert text.endswith("Take another.")


class Evil:
    """Runs code when it is unpickled the usual way."""

    def __reduce__(self):
        return (os.system, ("touch HACKED",))


def test_other_objects_of_a_file_are_not_built(tmp_path, network, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = official_state(network)
    rest = {"optimizer": torch.optim.Adam(network.parameters()), "evil": Evil(), "more": collections.defaultdict(list, a=[1])}
    torch.save({"model": state, **rest}, "all.pth")
    torch.save({"model": state, **rest}, "old.pth", _use_new_zipfile_serialization=False)
    for name in ("all.pth", "old.pth"):
        weights = read_sam_weights(name)
        assert len(weights) == len(state) == len(network.state_dict())
        assert all(torch.equal(weights[ours_from_official(key)], value) for key, value in state.items())
    torch.save({"model": Evil()}, "evil.pth")
    with pytest.raises(ConfigError, match="holds no tensors by name"):
        read_sam_weights("evil.pth")
    assert not (tmp_path / "HACKED").exists()


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.pth").write_text("<html>")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 20)
    for name, message in {
        "empty": "holds none of model.safetensors",
        "page.pth": "cannot be read",
        "list.pth": "holds no tensors by name",
        "bad.safetensors": "cannot be read",
        "nothing.pth": "no such file or folder, nor an id of the hub",
    }.items():
        with pytest.raises(ConfigError, match=message):
            read_sam_weights(str(tmp_path / name))


def test_a_hub_that_gives_nothing(monkeypatch):
    import huggingface_hub

    def refuse(*arguments):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(
        ConfigError, match=r"facebook/sam-none: no such file or folder here, and the hub gives none \(OSError\)"
    ):
        read_sam_weights("facebook/sam-none")
