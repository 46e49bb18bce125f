"""The built-in bases are what their recipes make of the recorded figures."""

import base_recipes
import pytest

from darkvocab.snowballs import bases


@pytest.mark.parametrize("name", ["qwen3_4b", "qwen3_4b_centred"])
def test_a_built_in_base_is_what_its_recipe_makes(name):
    stored, result = getattr(bases, name)(), getattr(base_recipes, name)()
    assert stored.dtype == result.dtype
    assert (stored == result).all()
