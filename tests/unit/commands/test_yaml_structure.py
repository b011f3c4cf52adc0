"""YAML files that cannot be read to the end are refused in a line, wherever a command takes one."""

from __future__ import annotations

import pytest

from seqgan_hf.commands import main
from seqgan_hf.commands.recipe import load_recipe
from seqgan_hf.commands.yaml_structure import MOST_LEVELS, MOST_VALUES, check_structure
from seqgan_hf.errors import RecipeError
from tests.tools.small_runs import quickstart


BAD = {
    "refers to itself": ("data: &all\n  a:\n  - b: *all\n", r"\*all in line 3 of '.*' is part of what it refers to"),
    "nested in brackets": (f"data: {'[' * 3000}{']' * 3000}\n", "101 levels in line 1 of .*: expected at most 100"),
    "nested in lines": ("".join(f"{' ' * level}a:\n" for level in range(300)), "101 levels in line 101 of"),
    "grows with every alias": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{name}: &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 10)}]\n" for name in "bcdefgh"),
        "values in line 5 of .*: expected at most .*100,000 values",
    ),
}


@pytest.mark.parametrize(
    "call",
    [
        ["train", "FILE"],
        ["train", "--config", "FILE"],
        ["train", "--config=FILE"],
        ["data", "FILE"],
        ["evaluate", "FILE"],
        "named by a recipe",
    ],
    ids=str,
)
@pytest.mark.parametrize("case", BAD)
def test_a_file_without_end_is_refused_in_a_line(case, call, tmp_path, capsys):
    content, message = BAD[case]
    path = tmp_path / "file.yaml"
    path.write_text(content)
    named = quickstart(tmp_path / "run", "--evaluation.recipe", "FILE") if isinstance(call, str) else call
    assert main([part.replace("FILE", str(path)) for part in named]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "report it" not in error
    with pytest.raises(RecipeError, match=message):
        check_structure(str(path))


def test_files_with_aliases_and_of_some_size_are_read(tmp_path):
    path = tmp_path / "file.yaml"
    content = "[" * (MOST_LEVELS - 1) + "&x [a, b], *x, *x, &y c, *y" + "]" * (MOST_LEVELS - 1)
    path.write_text(content)
    check_structure(str(path))
    thousand = f"&x [{', '.join('0' * 999)}]"  # a collection counts, too
    content = f"[{thousand}{', *x' * (MOST_VALUES // 1000 - 2)}, {', '.join('0' * 999)}"
    path.write_text(f"{content}]")
    check_structure(str(path))
    path.write_text(f"{content}, 0]")
    with pytest.raises(RecipeError, match="100,001 values"):
        check_structure(str(path))


@pytest.mark.parametrize("content", [None, b"a: [", b"\xff\xfe", b"a: *b", b""])
def test_what_is_missing_or_no_yaml_is_left_to_the_reader(content, tmp_path):
    path = tmp_path / "file.yaml"
    if content is not None:
        path.write_bytes(content)
    check_structure(str(path))


def test_a_recipe_may_use_anchors(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "data: {class_path: OracleData, init_args: {hidden_size: &size 8, embedding_size: *size}}\n"
        "objective: {class_path: SeqGAN}\ntraining: {output_dir: run}\n"
    )
    recipe, _ = load_recipe([str(path)])
    assert recipe.data.init_args.embedding_size == 8
