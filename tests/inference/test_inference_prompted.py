from __future__ import annotations

import pytest
import torch
from standins import TinyNetwork, batch_of

from madgnet_bench.contracts import Context, Prediction
from madgnet_bench.errors import ConfigError
from madgnet_bench.inference.prompted import ToldNetwork
from madgnet_bench.inference.whole_image import WholeImage


class Listener(TinyNetwork):
    def forward(self, image, *, context=None):
        self.heard = context
        return super().forward(image)


def told(network, batch):
    return ToldNetwork(network, image=batch.image, context=Context(domain_index=torch.tensor([3])))


def test_an_inferer_applies_a_network_that_knows_the_context():
    network, batch = Listener(2).eval(), batch_of(torch.zeros(2, 2, 16, 16))
    wrapped = told(network, batch)
    with torch.no_grad():
        prediction = WholeImage().infer(wrapped, batch)
        assert network.heard.domain_index.tolist() == [3]
        assert torch.equal(prediction.probability, network(batch.image).logits.sigmoid())
    assert isinstance(prediction, Prediction)
    assert (wrapped.num_targets, wrapped.label, wrapped.training) == (2, network.label, False)
    assert list(map(id, wrapped.parameters())) == list(map(id, network.parameters()))


def test_other_images_than_those_it_was_told_about_are_refused():
    batch = batch_of(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ConfigError, match="use the inferer WholeImage"):
        told(Listener(), batch)(batch.image.flip(3))
