from __future__ import annotations

import dataclasses

import torch
from standins import Boxes, TinyNetwork

from madgnet_bench.contracts import Inferer, SegmentationBatch, SegmentationNetwork, SegmentationOutput
from madgnet_bench.data.cases import CaseDataset
from madgnet_bench.inference.whole_image import WholeImage


def batch(targets=("a", "b")):
    data = CaseDataset(Boxes(targets=targets), range(3), size=16, targets=targets)
    return SegmentationBatch.collate([data[n] for n in range(3)])


def test_the_probability_is_the_sigmoid_of_one_pass():
    network, cases = TinyNetwork(2).eval(), batch()
    inferer = WholeImage()
    assert isinstance(inferer, Inferer) and not inferer.adapts
    with torch.no_grad():
        prediction = inferer.infer(network, cases)
        logits = network(cases.image).logits
    assert prediction.uncertainty is None
    assert torch.allclose(prediction.probability, 1 / (1 + torch.exp(-logits)), atol=1e-6)
    assert prediction.probability.shape == cases.mask.shape


def test_it_is_float32_in_any_precision():
    class Half(SegmentationNetwork):
        def forward(self, image, *, context=None):
            assert context is None
            return SegmentationOutput(torch.full(image.shape, 6.0, dtype=torch.bfloat16))

    probability = WholeImage().infer(Half(1), batch(("a",))).probability
    assert probability.dtype == torch.float32
    assert torch.allclose(probability, torch.tensor(6.0).sigmoid())


def test_it_does_not_look_at_masks():
    network, cases = TinyNetwork(2).eval(), batch()
    other = dataclasses.replace(cases, mask=torch.full_like(cases.mask, torch.nan))
    assert torch.equal(WholeImage().infer(network, cases).probability, WholeImage().infer(network, other).probability)
