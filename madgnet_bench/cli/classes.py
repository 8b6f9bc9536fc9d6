"""Every class that a configuration may name without its module.

Short class names work for what is imported when a configuration is read, so everything of ours is imported here; a user's
own class is named with its module, such as ``my_package.my_file.MyNetwork``.
"""

from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.official import CatalogDataset
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.data.samplers import DomainBatches, ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.data.transforms import FlipRotate
from madgnet_bench.inference.whole_image import WholeImage
from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.unet import UNet
from madgnet_bench.networks.wrapper import WrappedNetwork
from madgnet_bench.tasks.schedules import Cosine
from madgnet_bench.tasks.supervised import SegmentationTask, SupervisedTask

__all__ = [
    "CatalogDataset",
    "Cosine",
    "DiceBCELoss",
    "DomainBatches",
    "FlipRotate",
    "FolderDataset",
    "MADGNet",
    "PhantomDataset",
    "SeenUnseenDataModule",
    "SegmentationTask",
    "ShuffledBatches",
    "StructureLoss",
    "SupervisedTask",
    "UNet",
    "WholeImage",
    "WrappedNetwork",
]
