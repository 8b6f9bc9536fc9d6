"""The plainest inference: one pass over the whole image."""

from __future__ import annotations

from madgnet_bench.contracts import Inferer, Prediction, SegmentationBatch, SegmentationNetwork

__all__ = ["WholeImage"]


class WholeImage(Inferer):
    """One forward pass over the whole image; the probability is the sigmoid of the logits."""

    def infer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        """Predict every case of the batch in one pass."""
        return Prediction(network(batch.image).logits.float().sigmoid())
