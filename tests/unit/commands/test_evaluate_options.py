"""The command line of `seqgan-hf evaluate`."""

import pytest

from seqgan_hf.commands.recipe import load_evaluation
from seqgan_hf.errors import RecipeError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--model", "a", "b", "--seed", "1"], ["a", "b"]),
        (["--model", "a"], ["a"]),
        (["--model=a"], ["a"]),
        (["--model", "[a, b]"], ["a", "b"]),
    ],
)
def test_models_are_named_as_on_any_command_line(given, expected):
    settings = load_evaluation([*given, "--references", "r", "--temperatures", "0.7,0.8", "--metrics", "bleu,length"])
    assert settings.model == expected
    assert settings.temperatures == [0.7, 0.8] and settings.metrics == ["bleu", "length"]
    assert load_evaluation(["--model", "a", "--oracle", "o", "--temperatures=0.7", "1.1"]).temperatures == [0.7, 1.1]


@pytest.mark.parametrize(
    "given",
    [
        "--metrics distinct --metrics+ bleu length",
        "--metrics distinct --metrics+=[bleu,length]",
        "--metrics+ bleu,length --metrics distinct",
        "--metrics distinct --metrics+ bleu --metrics+ length",
    ],
)
def test_what_is_added_to_a_list_is_added_wherever_it_stands(given):
    settings = load_evaluation(["--model", "x", "--references", "r", *given.split()])
    assert settings.metrics == ["distinct", "bleu", "length"]


def test_a_list_that_is_given_twice_is_refused():
    """The first would be dropped."""
    with pytest.raises(RecipeError, match=r"--metrics 2 times: expected once\. Name all together, or add with"):
        load_evaluation(["--model", "x", "--references", "r", "--metrics", "distinct", "--metrics", "bleu"])
