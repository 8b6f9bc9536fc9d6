"""Every class that a configuration may name without its module.

Short class names work for what is imported when a configuration is read, so everything of ours is imported here; a user's
own class is named with its module, such as ``my_package.my_file.MyNetwork``.
"""

from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.official import CatalogDataset
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.single_target import SingleTarget
from madgnet_bench.contracts import Embeddings, Inferer, SegmentationLoss, SegmentationNetwork
from madgnet_bench.data.embeddings import EmbeddingCache
from madgnet_bench.data.samplers import BalancedBatches, BatchPlan, DomainBatches, ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.data.transforms import Augmentation, FlipRotate
from madgnet_bench.inference.whole_image import WholeImage
from madgnet_bench.layers.prompts import Clicks, JitteredBox, NoPrompts, PromptSource, RandomPoint, TightBox, WholeImageBox
from madgnet_bench.losses.multi_task import MultiTaskLoss
from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.networks.attention_unet import AttentionUNet
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.sam import SAM
from madgnet_bench.networks.sam_automatic import SAMAutomatic
from madgnet_bench.networks.sam_med2d import SAMMed2D
from madgnet_bench.networks.self_prompt_sam import SelfPromptSAM
from madgnet_bench.networks.smp import SMPNetwork
from madgnet_bench.networks.unet import UNet
from madgnet_bench.networks.unet_plus_plus import UNetPlusPlus
from madgnet_bench.networks.wrapper import WrappedNetwork
from madgnet_bench.tasks.few_shot import FewShotTask
from madgnet_bench.tasks.prompted import PromptedTask
from madgnet_bench.tasks.schedules import Cosine, Schedule
from madgnet_bench.tasks.supervised import SegmentationTask, SupervisedTask

__all__ = [
    "SAM",
    "AttentionUNet",
    "BalancedBatches",
    "CatalogDataset",
    "Clicks",
    "Cosine",
    "DiceBCELoss",
    "DomainBatches",
    "EmbeddingCache",
    "FewShotTask",
    "FlipRotate",
    "FolderDataset",
    "JitteredBox",
    "MADGNet",
    "MultiTaskLoss",
    "NoPrompts",
    "PhantomDataset",
    "PromptedTask",
    "RandomPoint",
    "SAMAutomatic",
    "SAMMed2D",
    "SMPNetwork",
    "SeenUnseenDataModule",
    "SelfPromptSAM",
    "ShuffledBatches",
    "SingleTarget",
    "StructureLoss",
    "SupervisedTask",
    "TightBox",
    "UNet",
    "UNetPlusPlus",
    "WholeImage",
    "WholeImageBox",
    "WrappedNetwork",
]

_BASES = {
    "augmentation": Augmentation,
    "batches": BatchPlan,
    "data": SeenUnseenDataModule,
    "embeddings": Embeddings,
    "inferer": Inferer,
    "loss": SegmentationLoss,
    "model": SegmentationTask,
    "network": SegmentationNetwork,
    "prompts": PromptSource,
    "region": SegmentationLoss,
    "schedule": Schedule,
    "seen": SegmentationDataset,
    "source": SegmentationDataset,
    "unseen": SegmentationDataset,
}


def fitting(key: str) -> list[str]:
    """Names of our classes that may stand at a key of the configuration; all of them where the key is not known."""
    base = _BASES.get(key, object)
    return [name for name in __all__ if issubclass(globals()[name], base)]
