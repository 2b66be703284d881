"""The tutorial's convolutional network; trains in minutes on two cores."""

from configs.expected import ExpectedResult
from configs.settings import CnnSettings

SETTINGS = CnnSettings(
    train_steps=5500,  # 10 epochs
    optimizer="adam",
    learning_rate=0.001,
    learning_rate_schedule="cosine",
    save_every_steps=500,
)

EXPECTED = ExpectedResult(
    goal=0.992,
    mean=0.9934,
    standard_deviation=0.0004,
    seeds=3,
    seconds=347,
    machine="Intel(R) Xeon(R) Processor, 2 cores, Linux x86_64",
)
