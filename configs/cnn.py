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
    weights_sha256=(
        "72e02d9e2f6e0c9620feeba1abecb054ada612de5584afc49e61af1a9cb3a16f",
        "66fbd8e8d0c85829a49ec375fcebf41fb63cbaf40deb82d10863007127d99a29",
        "8f14c796f6219a47b5441e3cf4c43c084a3fdbe06624c58b9a00ceb12964bb83",
    ),
)
