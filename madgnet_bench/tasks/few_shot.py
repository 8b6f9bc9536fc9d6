"""Networks that learn from a few images at once, without gradient steps."""

from __future__ import annotations

from torch import Tensor

from madgnet_bench.contracts import Embeddings, Inferer, SegmentationBatch, SegmentationLoss, SegmentationNetwork
from madgnet_bench.errors import ConfigError
from madgnet_bench.tasks.prompted import PromptedTask

__all__ = ["FewShotTask"]


class FewShotTask(PromptedTask):
    """Shows the network the first ``shots`` training cases of an epoch at once, and then evaluates it.

    The order of the training cases is drawn from the seed, so that a seed is a choice of cases. One epoch is enough; each
    further one shows other cases, which replace the earlier ones. A training set of fewer cases is shown whole.

    Args:
        network: One with a method ``learn(image, mask, *, present)``, and ``learned``, False until
            then, such as `SelfPromptSAM`; its parameters are frozen here.
        shots: Number of training cases, at least 1.
        embeddings: As in `PromptedTask`.
        inferer: As in `SegmentationTask`.
        protocol: As there.
        seed: As there.

    Raises:
        ConfigError: The network cannot learn in this way, or ``shots`` is below 1; in ``setup``, several processes would learn
            from parts of the cases.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        *,
        shots: int = 10,
        embeddings: Embeddings | None = None,
        inferer: Inferer | None = None,
        protocol: str = "madgnet",
        seed: int = 0,
    ) -> None:
        network.requires_grad_(False)
        super().__init__(network, SegmentationLoss(), embeddings=embeddings, inferer=inferer, protocol=protocol, seed=seed)
        if not callable(getattr(network, "learn", None)):
            raise ConfigError(f"{network.label} has no method learn for FewShotTask; train it with PromptedTask.")
        if shots < 1:
            raise ConfigError(f"FewShotTask with shots={shots}: use at least 1.")
        self.shots = shots
        self._shown: list[SegmentationBatch] = []

    def setup(self, stage: str) -> None:
        """Refuse several processes: which cases are shown would depend on their number."""
        super().setup(stage)
        if stage == "fit" and self.trainer.world_size > 1:
            raise ConfigError(
                f"FewShotTask learns in one process, not in {self.trainer.world_size}: set trainer.devices to 1; other "
                "devices can run other seeds."
            )

    def on_train_epoch_start(self) -> None:
        """Forget the cases of the epoch before."""
        super().on_train_epoch_start()
        self._shown = []

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> Tensor:
        """Collect cases; show them to the network once there are enough, or no more."""
        before = sum(map(len, self._shown))
        if before < self.shots:
            self._shown.append(batch)
            if before + len(batch) >= self.shots or self.trainer.is_last_batch:
                cases = SegmentationBatch.collate(self._shown)
                chosen = slice(self.shots)
                self.network.learn(cases.image[chosen], cases.mask[chosen], present=cases.target_present[chosen])  # type: ignore[operator]
        return super().training_step(batch, batch_idx)
