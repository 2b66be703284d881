import dataclasses
import math

import pytest

import configs
from configs.settings import CnnSettings, Settings
from mnist.model import graph, networks, schedules

REQUIRED = {"train_steps": 100, "optimizer": "sgd", "learning_rate": 0.1, "save_every_steps": 10}
FIELDS = dataclasses.fields(CnnSettings)
BOUNDED = [
    (field.name, bound, outside)
    for field in FIELDS
    for bound, outside in (("at_least", -1), ("at_most", 1))
    if field.metadata[bound] is not None
]
RECIPES = [*configs.names("softmax"), *configs.names("cnn")]


def with_settings(**values):
    """Settings with these values in place of plain ones."""
    return CnnSettings(**REQUIRED | values)


@pytest.mark.parametrize(("name", "bound", "outside"), BOUNDED)
def test_values_out_of_bounds_are_refused(name, bound, outside):
    """A bound itself is fine; what is beyond is refused, with the flag, the value and the bound."""
    limit = next(field for field in FIELDS if field.name == name).metadata[bound]
    assert getattr(with_settings(**{name: limit}), name) == limit
    with pytest.raises(ValueError, match=f"^--{name}={limit + outside}: {bound.replace('_', ' ')} {limit} wanted$"):
        with_settings(**{name: limit + outside})


@pytest.mark.parametrize("name", [field.name for field in FIELDS if field.type in {float, float | str}])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(name, value):
    """NaN is within no bounds, and nothing is endless."""
    with pytest.raises(ValueError, match=f"^--{name}={value}: .*wanted$"):
        with_settings(**{name: value})


@pytest.mark.parametrize("name", [field.name for field in FIELDS if field.metadata["choices"]])
def test_words_that_are_no_choice_are_refused(name):
    """The sentence lists the words to choose from, and each of them is taken."""
    choices = next(field for field in FIELDS if field.name == name).metadata["choices"]
    for choice in choices:
        assert getattr(with_settings(**{name: choice}), name) == choice
    with pytest.raises(ValueError, match=f"^--{name}=guess: one of {', '.join(choices)} wanted$"):
        with_settings(**{name: "guess"})


@pytest.mark.parametrize(
    "field", [field for field in FIELDS if field.metadata["or_word"]], ids=lambda field: field.name
)
def test_one_word_may_stand_for_a_number(field):
    """That one, and no other."""
    word = field.metadata["or_word"]
    assert getattr(with_settings(**{field.name: word}), field.name) == word
    for other in ("guess", word.upper(), ""):
        with pytest.raises(ValueError, match=f"^--{field.name}={other}: .*wanted$"):
            with_settings(**{field.name: other})


def test_saving_may_be_left_to_the_program():
    """Auto is said of the interval only; what it is computed from is a number."""
    assert [field.name for field in FIELDS if field.metadata["or_word"]] == ["save_every_seconds"]
    assert with_settings(save_every_seconds="auto").mean_seconds_between_failures == 86_400


def test_settings_cannot_be_changed():
    """A run's settings are those that it began with."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        with_settings().seed = 1


def test_settings_are_given_by_name():
    """Nobody has to know their order."""
    with pytest.raises(TypeError):
        Settings(100, "sgd", 0.1)


def test_an_unknown_setting_is_refused():
    """A recipe with a slip of the pen is none."""
    with pytest.raises(TypeError, match="learning_rates"):
        with_settings(learning_rates=0.1)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_has_a_meaning(field):
    """Each has a help line of its own, and says whether the weights depend on it."""
    assert len(field.metadata["meaning"]) > 3
    assert isinstance(field.metadata["changes_weights"], bool)


def test_what_changes_weights_identifies_a_run():
    """Saving, logging and threads may differ from one attempt to the next; all else may not."""
    assert set(with_settings().run_identity()) == {
        "train_steps",
        "batch_size",
        "optimizer",
        "learning_rate",
        "learning_rate_schedule",
        "momentum",
        "beta1",
        "beta2",
        "label_smoothing",
        "l2",
        "clip_gradient_norm",
        "ema_decay",
        "augment_rotation",
        "augment_zoom",
        "augment_shear",
        "augment_shift",
        "augment_elastic",
        "augment_cutout",
        "precision",
        "architecture",
        "seed",
        "validation_size",
        "dropout_rate",
        "members",
    }


def test_what_identifies_a_run_has_its_values():
    """They are those of the settings."""
    settings = with_settings(seed=7)
    assert all(getattr(settings, name) == value for name, value in settings.run_identity().items())
    assert settings.run_identity()["seed"] == 7


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_loaded(name):
    """Each holds settings within their bounds."""
    assert isinstance(configs.load(name), Settings)


def test_each_program_has_its_own_recipes():
    """The first is its default; none belongs to both."""
    assert configs.names("softmax")[0] == "softmax"
    assert configs.names("cnn")[0] == "cnn"
    assert len(set(RECIPES)) == len(RECIPES)
    assert "settings" not in RECIPES
    assert "command_line" not in RECIPES


@pytest.mark.parametrize("name", configs.names("cnn"))
def test_the_cnns_recipes_set_dropout(name):
    """Every recipe of the cnn knows what only the cnn needs."""
    assert isinstance(configs.load(name), CnnSettings)


def test_choices_are_those_of_the_task():
    """The words that flags allow are the words that the graph knows."""
    choices = {field.name: field.metadata["choices"] for field in FIELDS}
    assert choices["architecture"] == networks.ARCHITECTURES
    assert choices["optimizer"] == graph.OPTIMIZERS
    assert choices["learning_rate_schedule"] == schedules.NAMES
