"""PyTorch's usual training loop; variants: eager, compiled (torch.compile of model and loss)."""

import torch
from torch import nn

from benchmarks.trainers import protocol
from benchmarks.trainers.arrays import orders, scaled
from mnist.input import dataset


def make(model: str, batch_size: int, variant: str) -> protocol.TrainFor:
    """Gather batches by index from one tensor in memory, which is faster than a DataLoader."""
    images, labels = map(torch.from_numpy, scaled(dataset.load(None, 5000).train))
    if model == "softmax":
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        optimizer: torch.optim.Optimizer = torch.optim.SGD(net.parameters(), 0.5)
    else:
        net = nn.Sequential(
            *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(7 * 7 * 64, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 10)),
        ).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    source = orders(len(labels), batch_size)

    def loss_of(batch_images: torch.Tensor, batch_labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(net(batch_images), batch_labels)

    if variant == "compiled":
        loss_of = torch.compile(loss_of)

    def run_steps() -> int:
        batch = torch.from_numpy(next(source))
        optimizer.zero_grad(set_to_none=True)
        loss_of(images[batch][:, None], labels[batch]).backward()
        optimizer.step()
        return 1

    return protocol.repeat(run_steps)


if __name__ == "__main__":
    protocol.serve(make)
