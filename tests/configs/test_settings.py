import dataclasses
import math

import pytest

import configs
from configs.settings import REMOVED, CnnSettings, Settings
from mnist.model import networks, schedules, training_graph

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
    """CnnSettings with these values; the required ones have defaults here."""
    return CnnSettings(**REQUIRED | values)


@pytest.mark.parametrize(("name", "bound", "outside"), BOUNDED)
def test_values_out_of_bounds_raise(name, bound, outside):
    """The bound itself is allowed. Beyond it, the message names the flag, the value and the bound."""
    limit = next(field for field in FIELDS if field.name == name).metadata[bound]
    assert getattr(with_settings(**{name: limit}), name) == limit
    with pytest.raises(ValueError, match=f"^--{name}={limit + outside}: expected {bound.replace('_', ' ')} {limit}$"):
        with_settings(**{name: limit + outside})


@pytest.mark.parametrize("name", [field.name for field in FIELDS if field.type in {float, float | str}])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(name, value):
    """NaN and infinity are out of bounds."""
    with pytest.raises(ValueError, match=f"^--{name}={value}: expected .*$"):
        with_settings(**{name: value})


@pytest.mark.parametrize("name", [field.name for field in FIELDS if field.metadata["choices"]])
def test_words_must_be_one_of_the_choices(name):
    """Every choice is allowed; for any other word the message lists the choices."""
    choices = next(field for field in FIELDS if field.name == name).metadata["choices"]
    for choice in choices:
        assert getattr(with_settings(**{name: choice}), name) == choice
    with pytest.raises(ValueError, match=f"^--{name}=guess: expected one of {', '.join(choices)}$"):
        with_settings(**{name: "guess"})


@pytest.mark.parametrize(
    "field", [field for field in FIELDS if field.metadata["or_word"]], ids=lambda field: field.name
)
def test_one_word_is_allowed_in_place_of_a_number(field):
    """Exactly that word, in lower case."""
    word = field.metadata["or_word"]
    assert getattr(with_settings(**{field.name: word}), field.name) == word
    for other in ("guess", word.upper(), ""):
        with pytest.raises(ValueError, match=f"^--{field.name}={other}: expected .*$"):
            with_settings(**{field.name: other})


def test_only_save_every_seconds_may_be_auto():
    """The time between failures that it is computed from has a default."""
    assert [field.name for field in FIELDS if field.metadata["or_word"]] == ["save_every_seconds"]
    assert with_settings(save_every_seconds="auto").mean_seconds_between_failures == 86_400


def test_settings_are_frozen():
    """Assignment to a field raises."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        with_settings().seed = 1


def test_settings_are_keyword_only():
    """Positional arguments raise."""
    with pytest.raises(TypeError):
        Settings(100, "sgd", 0.1)


def test_an_unknown_setting_raises():
    """A typo in a recipe is an error that names it."""
    with pytest.raises(TypeError, match="learning_rates"):
        with_settings(learning_rates=0.1)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_has_a_help_line(field):
    """Help lines are complete on their own: two words or more, no full stop, and not the same twice."""
    line = field.metadata["help"]
    assert " " in line
    assert not line.endswith(".")
    assert [other.metadata["help"] for other in FIELDS].count(line) == 1
    assert isinstance(field.metadata["changes_weights"], bool)


def test_the_run_identity_is_what_changes_weights():
    """Settings of saving, logging and threads may differ between attempts of a run; all others may not."""
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
        "precision",
        "instruction_set",
        "architecture",
        "seed",
        "validation_size",
        "dropout_rate",
        "members",
    }


def test_the_run_identity_has_the_values_of_the_settings():
    """Each entry is the value of the setting of that name."""
    settings = with_settings(seed=7)
    assert all(getattr(settings, name) == value for name, value in settings.run_identity().items())
    assert settings.run_identity()["seed"] == 7


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_loaded(name):
    """The settings of each recipe are within their bounds."""
    assert isinstance(configs.load(name), Settings)


def test_names_lists_the_recipes_of_a_program():
    """The default comes first; no recipe belongs to both programs; other modules are not recipes."""
    assert configs.names("softmax")[0] == "softmax"
    assert configs.names("cnn")[0] == "cnn"
    assert len(set(RECIPES)) == len(RECIPES)
    assert "settings" not in RECIPES
    assert "flags" not in RECIPES


@pytest.mark.parametrize("name", configs.names("cnn"))
def test_recipes_of_the_cnn_are_cnn_settings(name):
    """They have the settings that only the cnn has."""
    assert isinstance(configs.load(name), CnnSettings)


def test_choices_are_those_of_the_model():
    """Flags allow exactly the words that the model code accepts."""
    choices = {field.name: field.metadata["choices"] for field in FIELDS}
    assert choices["architecture"] == networks.ARCHITECTURES
    assert choices["optimizer"] == training_graph.OPTIMIZERS
    assert choices["learning_rate_schedule"] == schedules.NAMES


def test_identity_defaults_are_the_defaults_of_the_fields():
    """Every setting with a default is there; the ones that each recipe must set are not."""
    defaults = CnnSettings.identity_defaults()
    assert defaults["batch_size"] == 100
    assert defaults["dropout_rate"] == 0.5
    assert not REQUIRED.keys() & defaults.keys()
    assert with_settings().run_identity().keys() <= defaults.keys() | REQUIRED.keys()


def test_identity_defaults_include_removed_settings():
    """A run recorded by an earlier release with a removed setting at its default can be resumed."""
    defaults = Settings.identity_defaults()
    assert (defaults["augment_elastic"], defaults["augment_cutout"]) == (0.0, 0)
    assert not REMOVED.keys() & {field.name for field in FIELDS}
