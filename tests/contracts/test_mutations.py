"""For every objective a wrong formula is noticed; see `tests/tools/mutations.py`."""

from __future__ import annotations

import pytest

from tests.tools.mutations import MUTATIONS, is_noticed, run
from tests.tools.objectives import OBJECTIVES


def test_every_objective_has_a_mutation():
    assert sorted(mutation.objective for mutation in MUTATIONS) == sorted(OBJECTIVES)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.objective)
def test_a_wrong_formula_is_noticed(mutation):
    assert is_noticed(mutation)
    run(mutation)  # which passes: nothing is left of the mutation
