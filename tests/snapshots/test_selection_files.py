"""A selection as a TOML file: the options of the command, and one line for whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strata.errors import InvalidInput
from strata.snapshots import read_selection_file

WHOLE = """
select = "diverse"
share = 0.5
seed = 3
where = "match > 0.4"
unique = true
same = "cropped"
bits = 64
by = ["cluster:512", "text"]
cap = 20000
concepts = ["nouns", "tags"]
quality = "aesthetic"
scores = "aesthetic.csv"
accept-shortfall = true

[leave-out]
blurred = "sharpness < 20"

[target.text]
yes = 0.5

[quota]
"*/cc3m/*" = "40%"
other = 2000
"""


def test_a_file_says_what_the_options_say(tmp_path: Path) -> None:
    file = tmp_path / "half.toml"
    file.write_text(WHOLE, encoding="utf-8")
    assert read_selection_file(file) == {
        **{"select": "diverse", "share": 0.5, "seed": 3, "where": "match > 0.4", "unique": True, "same": "cropped"},
        **{"bits": 64, "by": ["cluster:512", "text"], "cap": 20000, "concepts": ["nouns", "tags"]},
        **{"quality": "aesthetic", "scores": tmp_path / "aesthetic.csv", "accept_shortfall": True},
        **{"leave_out": ["blurred=sharpness < 20"], "target": ["text=yes:0.5"]},
        "quota": ["*/cc3m/*=40%", "other=2000"],
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("shar = 0.5", "'shar' is no option of a selection; did you mean 'share'?"),
        ("leave_out = {}", "'leave_out' is no option of a selection; did you mean 'leave-out'?"),
        ("share = 'half'", "share: "),
        ("where = ''", "where: "),
        ("[quota]\na = []", "quota.a"),
        ("by = 'text'", "by: "),
        ("share = ", "it is no TOML file"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "half.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_selection_file(file)
    assert str(caught.value).startswith(f"{file}: {line}") and "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="No such file"):
        read_selection_file(tmp_path / "none.toml")


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_selection_or_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "any.toml"
    file.write_bytes(content)
    try:
        assert isinstance(read_selection_file(file), dict)
    except InvalidInput as error:
        assert str(error)
