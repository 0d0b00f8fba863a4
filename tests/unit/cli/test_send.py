import pytest
from click.testing import CliRunner

from genesis.cli.main import main


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{sku}", "genesis: this is not JSON: JSON is malformed: "),
        ("", "genesis: this is not JSON: "),
        ("[1]", 'genesis: the fields are a JSON object, such as {"sku": "tea"}, not [1]\n'),
        ("3", "genesis: the fields are a JSON object"),
        ('"' + "x" * 100 + '"', "genesis: the fields are a JSON object"),
        ('{"a": 1}}', "genesis: this is not JSON: "),
    ],
)
def test_fields_that_are_none_exit_2_before_a_store_is_opened(body: str, said: str) -> None:
    result = CliRunner().invoke(main, ["send", "shop.placed", body, "--store", "nowhere.db"])
    assert result.exit_code == 2
    assert result.stderr.startswith(said)
    assert len(result.stderr) < 200


def test_an_id_is_for_one_event() -> None:
    result = CliRunner().invoke(main, ["send", "shop.placed", "-", "--id", "x", "--store", "nowhere.db"])
    assert (result.exit_code, result.stderr) == (
        2,
        "genesis: --id is for one event: give its JSON as an argument, not on stdin\n",
    )


def test_an_empty_id_is_none() -> None:
    result = CliRunner().invoke(main, ["send", "shop.placed", "{}", "--id", "", "--store", "nowhere.db"])
    assert (result.exit_code, result.stderr) == (2, "genesis: --id is empty: events with one id are one event\n")
