"""The tutorial's softmax regression: 1000 steps of 100 images, plain gradient descent; trains in a second."""

from configs.expected import ExpectedResult
from configs.settings import Settings

SETTINGS = Settings(
    train_steps=1000,
    optimizer="sgd",
    learning_rate=0.5,
    learning_rate_schedule="cosine",  # over 8 seeds, a third of the spread of a constant rate
    save_every_steps=200,
    evaluate_every_steps=200,  # every checkpoint is validated, so the best one is known
    threads=1,  # steps are so short that handing work to other threads costs more time than it saves
)

EXPECTED = ExpectedResult(
    goal=0.914,
    mean=0.9175,
    standard_deviation=0.0006,
    seeds=5,
    seconds=4.1,
    machine="Intel(R) Xeon(R) Processor, 2 cores, Linux x86_64",
)
