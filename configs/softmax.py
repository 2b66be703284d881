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
    weights_sha256=(
        "c7ffd868970331d3cb5eaf11b23e6bb9f7a42309c3b6f2efaa606db56f906623",
        "68554c67d5e7a4fdbe08843c6aa90ed33d96c089745b94837eafc84ab48e6d64",
        "500f60afe8874f4a550b357912a3246132cabd688b4fc4f76b369d5c6fffc067",
        "1c69e8a005c28f0368273d5854f2c231471b5e44e3dedb7e06c9fde2d6185dbf",
        "ff202acc549ac3202047443e6019850faff2eb6ce65b9633b7f43f1ef8f369cf",
    ),
)
