"""TOML that commands write says what it was made from, and an edited file keeps what is not edited."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.config.edited import shown, text_of, value_of, with_key

texts = st.text(st.characters(codec="utf-8"))
scalars = texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.lists(texts, max_size=3)
tables = st.dictionaries(texts, scalars | st.dictionaries(texts, scalars, max_size=3), max_size=5)


@given(tables)
def test_a_file_says_what_it_was_made_from(table: dict[str, object]) -> None:
    assert tomllib.loads(text_of(table)) == table
    assert tomllib.loads(f"value = {shown(table)}") == {"value": table}


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("true", True), ('["a", "b"]', ["a", "b"]), ("50ms", "50ms"), ("1\nb = 2", "1\nb = 2"), ("", "")],
)
def test_what_is_not_a_value_is_a_text(text: str, value: object) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('# mine\nname = "a"', 'removed = true\n# mine\nname = "a"'),
        ("removed = false # why\n[a]\nremoved = false\n", "removed = true\n[a]\nremoved = false\n"),
        ("[a]\nremoved = false\n", "removed = true\n[a]\nremoved = false\n"),
    ],
)
def test_a_key_is_changed_and_the_rest_stays(before: str, after: str) -> None:
    assert with_key(before, "removed", True) == after
