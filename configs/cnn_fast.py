"""The fastest recipe: one epoch of a small network, 0.99 test accuracy in seconds.

After github.com/tuomaso/train_mnist_fast: convolutions without padding, Adam with small betas, one-cycle learning
rate. Label smoothing is added; it raises the validation accuracy by 0.2 points (docs/recipes.md).
"""

from configs.expected import ExpectedResult
from configs.settings import CnnSettings

SETTINGS = CnnSettings(
    architecture="one_epoch",
    train_steps=430,  # one epoch
    batch_size=128,
    optimizer="adam",
    learning_rate=0.012,
    learning_rate_schedule="one_cycle",
    beta1=0.7,
    beta2=0.9,
    label_smoothing=0.1,
    dropout_rate=0.0,
    save_every_steps=200,
    evaluate_every_steps=0,  # at the last step only: one validation takes as long as twenty steps
)

EXPECTED = ExpectedResult(
    goal=0.99,
    mean=0.9909,
    standard_deviation=0.0009,
    seeds=10,
    seconds=7.6,
    machine="Intel(R) Xeon(R) Processor, 2 cores, Linux x86_64",
    weights_sha256=(
        "5cfd9a75ff0581c301d38d3acec301135f85eb4d92011f794f883016c419cbf4",
        "938ae6965e68b151b010597e37d98f3ab0f4db783dfc96d3b7c1806c9bbbb7a4",
        "c67e193440e71dbdcf8f2fd28b53bdd19a16c06b743acdddd8d3dc79488e80b2",
        "8010e11769657a43b6167cfc09821263ba0c879240a89fefd7ce9fcabc3755c2",
        "198bdfe149f386abd63de2ff811a51d56706a52639deff3b73919918624e4df9",
        "c945ce8dc9553c31a04bb6b34590fb5b9c5a90d930ae9989677650b6a1e7a2d4",
        "cdd28d02994786e1677dcc0c05d8459b1b0bd70cba9f726c5839413a3120ee61",
        "0579b2ca7b7691f61850aac53b2e8c1824802351b7f25482e260879c427f9772",
        "bba87d8f9584fb15e424a828b6fd2f823708460353c652105e14f28e4c8d7aae",
        "e0e772db256ee96e6d0bfdb11adc4adf1d98660dcab8820369a6b3c7ff8c412c",
    ),
)
