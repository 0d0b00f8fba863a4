import pytest

from genesis.cli import talk
from genesis.cli.talk import Failure, did_you_mean, iso, lasting, printable, report, table
from genesis.core.errors import DefinitionError, SettingsError, StoreError, StoreInUseError, UnknownTypeError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8e-5, "80 us"), (0.012, "12 ms"), (3.21, "3.2 s"), (65, "1 min 5 s"), (7500, "2 h 5 min"), (273600, "3 d 4 h")],
)
def test_lasting(seconds: float, text: str) -> None:
    assert lasting(seconds) == text


def test_times_for_programs_are_utc() -> None:
    assert iso(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"
    assert iso(None) is None


def test_what_others_wrote_does_not_steer_the_terminal() -> None:
    assert printable("a\x1b[31mb\tc\nd\u202e") == "a\\x1b[31mb\tc\nd\\u202e"


def test_a_close_name_is_offered_and_a_distant_one_is_not() -> None:
    assert did_you_mean("staus", ["status", "run"]) == "; did you mean 'status'?"
    assert did_you_mean("xyz", ["status", "run"]) == ""


def test_columns_stand_below_each_other() -> None:
    assert table(["KEY", "WHY"], [["1", "a\nb"], ["12345", "c"]]) == "KEY    WHY\n1      a b\n12345  c"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Failure("nobody", 4), 4, "genesis: nobody\n"),
        (DefinitionError("no key", where="shop.py:3", fix="key="), 3, "shop.py:3: no key\n    write: key=\n"),
        (SettingsError("x"), 3, "genesis: x\n"),
        (StoreError("x"), 3, "genesis: x\n"),
        (StoreInUseError("a.db", 7, "vm"), 3, "genesis: a.db is in use by process 7 on vm; stop it, or send through it\n"),
        (UnknownTypeError("x"), 1, "genesis: x\n"),
    ],
)
def test_errors_end_in_a_line_and_a_code(error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error) == code
    assert capsys.readouterr() == ("", said)


def test_a_bug_is_told_apart_from_an_error_of_the_application(capsys: pytest.CaptureFixture[str]) -> None:
    def of_the_user() -> None:
        raise KeyError("sku")

    for culprit in (of_the_user, lambda: talk.lasting("x")):  # type: ignore[arg-type]
        with pytest.raises((KeyError, TypeError)) as caught:
            culprit()
        assert report(caught.value) == 1
    first, _, second, _ = capsys.readouterr().err.splitlines()
    assert first.startswith(f"genesis: {__file__}:")
    assert "KeyError: 'sku'" in first
    assert second.startswith("genesis: this is a bug of Genesis: TypeError")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GENESIS_LOG", "debug")
    report(StoreError("x"))
    assert "genesis.core.errors.StoreError: x\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "painted"), [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)]
)
def test_colours(variables: dict[str, str], painted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in talk.painted("ok", "green")) is painted
