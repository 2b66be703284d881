"""The smallest network: five convolutions with batch normalization, 7,578 parameters.

Predictions are averaged over five copies of the image, each moved by at most one pixel, which removes a quarter of the
errors (docs/recipes.md). Trains on all 60,000 images; the settings were chosen with 10,000 images held out.
"""

from configs.expected import ExpectedResult
from configs.settings import CnnSettings

SETTINGS = CnnSettings(
    architecture="small",
    train_steps=7032,  # 15 epochs
    batch_size=128,
    optimizer="adam",
    learning_rate=0.01,
    learning_rate_schedule="one_cycle",
    beta2=0.99,
    dropout_rate=0.0,
    augment_rotation=8,
    augment_zoom=0.08,
    augment_shear=0.1,
    augment_shift=1.5,
    crops=5,
    validation_size=0,
    save_every_steps=469,
    evaluate_every_steps=0,
)

EXPECTED = ExpectedResult(
    goal=0.9945,
    mean=0.9953,
    standard_deviation=0.0007,
    seeds=5,
    seconds=527,
    machine="AMD EPYC, 2 cores, Linux x86_64",
    weights_sha256=(
        "14e356ecc74640f739321d5e7dfe90546754b4e996eb0851eaddd30c41362d62",
        "605e4f9b97d9531ee613f6790888cb446c3adfc8acbc02c6b95d598a052a389d",
        "ccbd4b124b8510185db4929fc5f9d42e8578aa0d62851122f24ffcd98e59d135",
        "8050607f96bf3b97ba6e7b3fdd50baa5f2af51bf17c657748530b06206d28ac4",
        "81e449886d921884edc904792c62251ee666e9a0a3f7a9c88db5b29c35edf1e2",
    ),
)
