"""PyTorch's example "Basic MNIST": 14 epochs, batch size 64, Adadelta at 1.0, times 0.7 after each epoch.

Source: github.com/pytorch/examples, mnist/main.py. Differences: batches are gathered from one tensor in memory, which
is faster than the example's DataLoader, and the last, incomplete batch of an epoch is dropped.
"""

import torch
from torch import nn

from benchmarks.trainers.arrays import orders, scaled
from mnist.input import dataset

_BATCH, _EPOCHS = 64, 14
_MEAN, _DEVIATION = 0.1307, 0.3081  # of MNIST's pixels, from the example


def main() -> None:
    """Print the test accuracy after each epoch."""
    torch.manual_seed(1)
    data = dataset.load(None, 0)
    (images, labels), (test_images, test_labels) = (
        (((torch.from_numpy(images) - _MEAN) / _DEVIATION)[:, None], torch.from_numpy(labels))
        for images, labels in map(scaled, (data.train, data.test))
    )
    net = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
        *(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    source = orders(len(labels), _BATCH)
    for _ in range(_EPOCHS):
        net.train()
        for _batch in range(len(labels) // _BATCH):
            batch = torch.from_numpy(next(source))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
        net.eval()
        with torch.no_grad():
            classes = torch.cat([net(part).argmax(1) for part in test_images.split(1000)])
        print((classes == test_labels).double().mean().item(), flush=True)


if __name__ == "__main__":
    main()
