"""The training program that one would write: torchvision, DataLoader, the adabound package, MLflow once an epoch.

Model, hyperparameters and images are those of this project, so that the arithmetic is the same; everything else is as in
torch's own tutorials. It computes on all cores, or on a GPU.
"""

from __future__ import annotations

import mlflow
import torch
from adabound import AdaBound
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import asked, peer_data
from benchmarks.stopwatch import Stopwatch, say
from repro.recipe import AdaBoundSpec
from repro.spec import flatten


def optimizer_for(model: nn.Module, spec: AdaBoundSpec) -> AdaBound:
    """The package's AdaBound."""
    return AdaBound(
        model.parameters(), lr=spec.lr, final_lr=spec.final_lr, betas=(spec.beta1, spec.beta2), gamma=spec.gamma
    )


def train_epoch(
    model: nn.Module, loader: DataLoader, optimizer: AdaBound, epoch: int, watch: Stopwatch
) -> tuple[list[float], float]:
    """One pass; returns the loss of every step and the accuracy. It ends early when the stopwatch has what it wants."""
    criterion = nn.CrossEntropyLoss()
    device = next(model.parameters()).device
    model.train()
    losses, correct = [], 0
    for step, batch in enumerate(loader, 1):
        images, labels = (one.to(device) for one in batch)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        correct += (outputs.argmax(1) == labels).sum().item()
        if device.type == "cpu":
            watch.at(epoch, step)
        if watch.done:
            break
    return losses, correct / len(loader.dataset)


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Mean loss and accuracy."""
    criterion = nn.CrossEntropyLoss(reduction="sum")
    device = next(model.parameters()).device
    model.eval()
    loss, correct = 0.0, 0
    for batch in loader:
        images, labels = (one.to(device) for one in batch)
        outputs = model(images)
        loss += criterion(outputs, labels).item()
        correct += (outputs.argmax(1) == labels).sum().item()
    return loss / len(loader.dataset), correct / len(loader.dataset)


def main() -> None:
    """Trains until the stopwatch has what it wants."""
    given = asked.parse()
    spec = given.spec
    watch = Stopwatch(given.warmup, given.steps, say)
    torch.manual_seed(spec.seed)
    model = peer_data.network(spec.model).to(given.device)
    optimizer = optimizer_for(model, spec.optimizer)
    train_loader, val_loader = peer_data.loaders(given.dataset, given.data_dir, spec.training.batch_size, given.workers)
    with mlflow.start_run():
        mlflow.log_params(flatten(spec))
        for epoch in range(1, spec.training.epochs + 1):
            losses, accuracy = train_epoch(model, train_loader, optimizer, epoch, watch)
            if watch.done:
                break
            val_loss, val_accuracy = evaluate(model, val_loader)
            mlflow.log_metrics(
                {
                    "train_loss": sum(losses) / len(losses),
                    "train_accuracy": accuracy,
                    "val_loss": val_loss,
                    "val_accuracy": val_accuracy,
                },
                step=epoch,
            )
            if given.device != "cpu":  # whole epochs, as our own program is measured there
                watch.at(1, epoch)


if __name__ == "__main__":
    main()
