"""The same training with PyTorch Lightning and its MLFlowLogger, as its documentation writes it, on all cores.

The progress bar is off, which helps it: nobody watches.
"""

from __future__ import annotations

import os

import torch
from adabound import AdaBound
from torch.nn import functional

from benchmarks import asked, peer_data  # loads torchvision in the way it needs, before lightning imports it plainly
from benchmarks.stopwatch import Stopwatch, say
from benchmarks.usual_loop import optimizer_for
from repro.spec import RunSpec

# isort: split
import lightning
from lightning.pytorch.loggers import MLFlowLogger


class Classifier(lightning.LightningModule):
    """One of the networks with its training and validation step."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__()
        self.spec = spec
        self.model = peer_data.network(spec.model)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """The loss of a batch."""
        images, labels = batch
        outputs = self.model(images)
        loss = functional.cross_entropy(outputs, labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        self.log("train_accuracy", (outputs.argmax(1) == labels).float().mean(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        """Loss and accuracy of a batch."""
        images, labels = batch
        outputs = self.model(images)
        self.log("val_loss", functional.cross_entropy(outputs, labels))
        self.log("val_accuracy", (outputs.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> AdaBound:
        """The package's AdaBound."""
        return optimizer_for(self.model, self.spec.optimizer)


class Watch(lightning.Callback):
    """Carries the stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: object) -> None:
        """Counts a step; the last argument is its number from 0."""
        self.watch.at(trainer.current_epoch + 1, int(args[-1]) + 1)
        trainer.should_stop = self.watch.done


def main() -> None:
    """Trains until the stopwatch has what it wants."""
    given = asked.parse()
    spec = given.spec
    lightning.seed_everything(spec.seed)
    loaders = peer_data.loaders(given.dataset, given.data_dir, spec.training.batch_size, given.workers)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=spec.training.epochs,
        logger=MLFlowLogger(tracking_uri=os.environ["MLFLOW_TRACKING_URI"]),
        callbacks=[Watch(Stopwatch(given.warmup, given.steps, say))],
        enable_progress_bar=False,
    )
    trainer.fit(Classifier(spec), *loaders)


if __name__ == "__main__":
    main()
