"""A number from the environment is in its range, or one sentence names the variable."""

from __future__ import annotations

import pytest

from unmixer_core.errors import ConfigError
from unmixer_core.system import environment


@pytest.mark.parametrize(("given", "value"), [({}, 3), ({"N": ""}, 3), ({"N": "8"}, 8)])
def test_a_number_is_read_and_an_unset_variable_is_the_default(given, value):
    assert environment.integer("N", 3, 1, 8, environ=given) == value


@pytest.mark.parametrize("text", ["0", "9", "-1", "1.5", "many", "²", " 2"])
def test_a_wrong_number_is_refused_with_its_name_and_range(text):
    with pytest.raises(ConfigError, match=r"N is '.+', but a whole number from 1 to 8 is expected"):
        environment.integer("N", 3, 1, 8, environ={"N": text})


def test_a_range_may_have_no_upper_end():
    assert environment.integer("N", 3, 1, environ={"N": "1000000"}) == 1_000_000
    with pytest.raises(ConfigError, match="of 1 or more is expected"):
        environment.integer("N", 3, 1, environ={"N": "0"})
