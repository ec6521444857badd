"""What every data module of images does: loaders in the samplers' order, and batches on their way to the device."""

import functools
from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.bad_image_hook import hand_over
from datamodules.files.errors import UserError
from datamodules.image_dataset import Batch, ImageDataset
from datamodules.images.transforms import normalize
from datamodules.sampler import EvalSampler, TrainSampler
from datamodules.splits import fingerprint
from datamodules.workers.loader import build_loader, default_num_workers


class BaseDataModule(LightningDataModule):
    """Loads the data sets that a subclass sets up.

    Attributes:
        batch_size: Images per step and process.
        num_workers: Loader processes of each training process; None for its share of the CPUs.
        worker_timeout: Seconds after which a loader process that delivers nothing ends the run; 0 for never.
        seed: Seed of the order of samples.
        held_out: A sentence on what is held out of the training images; empty if nothing is.
        normalizes: Whether batches are normalised on the device; False where an exported file does it.
    """

    batch_size: int
    num_workers: int | None
    worker_timeout: int
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self._datasets: dict[str, ImageDataset] = {}
        self.held_out = ""
        self.normalizes = True

    def dataset(self, split: str) -> ImageDataset:
        """Returns ``train``, ``val``, ``test`` or ``predict``, which must be set up, over all processes."""
        return self._datasets[split]

    @functools.cached_property
    def fingerprint(self) -> dict[str, dict[str, int | str]]:
        """Number of images and a hash of each split that is set up; computed once, as it looks at every file."""
        listed_in = {"val": "train"} if self.held_out else {"predict": "test"}
        return {
            split: fingerprint(dataset.names, dataset.paths, listed_in.get(split, split))
            for split, dataset in self._datasets.items()
        }

    def resume_point(self) -> tuple[int, int]:
        """Returns the epoch a fit is in or begins with, and how many of its batches are done; 0 at an epoch's end.

        Lightning tells the sampler of the epoch only after loading has begun, and of the batches never.
        """
        if not self.trainer:
            return 0, 0
        loop = self.trainer.fit_loop
        epoch: Any = loop.epoch_progress.current
        inside_epoch = epoch.ready > epoch.processed
        return epoch.processed, loop.epoch_loop.batch_progress.current.ready if inside_epoch else 0

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled by ``TrainSampler``; an incomplete last batch is left out unless it is the only one."""
        size = len(self._datasets["train"])
        rank, world_size = self._rank_and_world_size()
        if size < world_size:
            raise UserError(
                f"{world_size} processes need as many training images, found {size}: lower --trainer.devices"
            )
        epoch, batches = self.resume_point()
        skip = batches * self.batch_size
        sampler = TrainSampler(size, seed=self.seed, rank=rank, world_size=world_size, epoch=epoch, skip=skip)
        return self._loader("train", sampler, drop_last=len(sampler) >= self.batch_size)

    @override
    def val_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("val")

    @override
    def test_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    @override
    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("predict")  # whose sample i is row i of the prediction

    @override
    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if batch.unreadable:
            hand_over(batch.unreadable, self.trainer)
            if self.trainer and self.trainer.training and batch.num_blanks:
                raise batch.unreadable[0]  # no blank may take part in training
        return batch

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if not self.normalizes:
            return batch
        images = normalize(batch.images)  # on the device, where they are by now
        # Mixed as floats, which need no rounding; normalisation is affine, so the order makes no other difference.
        return batch._replace(images=batch.mix.mix(images) if batch.mix else images)

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        rank, world_size = self._rank_and_world_size()
        size = len(self._datasets[split])
        sampler = EvalSampler(size, batch_size=self.batch_size, rank=rank, world_size=world_size)
        return self._loader(split, sampler, drop_last=False)

    def _loader(self, split: str, sampler: TrainSampler | EvalSampler, drop_last: bool) -> DataLoader[Batch]:
        workers = self.num_workers
        if workers is None:
            workers = default_num_workers(self.trainer.num_devices if self.trainer else 1)
        return build_loader(
            self._datasets[split],
            sampler,
            batch_size=self.batch_size,
            drop_last=drop_last,
            num_workers=workers,
            worker_timeout=self.worker_timeout,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
