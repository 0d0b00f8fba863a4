import io
import json
import logging
import os
import signal
import sys

import pytest
from click.testing import CliRunner

from genesis.cli.logs import Pretty, logging_to_stderr
from genesis.cli.main import main
from genesis.cli.run import CrashAt
from genesis.cli.talk import Failure
from genesis.core.ports import CrashPoint


def test_a_crash_comes_at_the_nth_passing_of_its_point(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    crash = CrashAt.of("commit:2")
    for point in (*CrashPoint, *(p for p in CrashPoint if p != CrashPoint.COMMIT)):
        crash(point)
    assert not killed
    crash(CrashPoint.COMMIT)
    assert killed == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.parametrize("text", ["commit", "commit:0", "commit:-1", "commit:x", "nowhere:1", ":1", "commit:1:2"])
def test_a_crash_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="POINT:N, a point of append, execute, commit, answer, handoff") as caught:
        CrashAt.of(text)
    assert caught.value.code == 3


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"GENESIS_LOG": "warn"},
            "genesis: GENESIS_LOG is 'warn': one of debug, info, warning, error, and json or pretty; did you mean 'warning'?\n",
        ),
        ({"GENESIS_LOG": "info,jsn"}, "genesis: GENESIS_LOG is 'info,jsn': one of debug, info, warning, error"),
        ({"GENESIS_SLOT": "3"}, "genesis: unknown setting GENESIS_SLOT; did you mean GENESIS_SLOTS?\n"),
        ({"GENESIS_SLOTS": "many"}, "genesis: GENESIS_SLOTS is 'many': a whole number\n"),
        ({"GENESIS_CRASH": "here"}, "genesis: GENESIS_CRASH is 'here': POINT:N"),
    ],
)
def test_settings_that_do_not_fit_exit_3(variables: dict[str, str], said: str) -> None:
    result = CliRunner(env=variables).invoke(main, ["run", "shop:app", "--log", "pretty"])
    assert result.exit_code == 3
    assert result.stderr.startswith(said)


def test_where_programs_read_the_log_errors_are_lines_of_json_too() -> None:
    result = CliRunner(env={"GENESIS_SLOTS": "many"}).invoke(main, ["run", "shop:app"])
    line = json.loads(result.stderr)
    assert (result.exit_code, line["level"], line["logger"]) == (3, "ERROR", "genesis")
    assert line["message"] == "GENESIS_SLOTS is 'many': a whole number"


@pytest.mark.parametrize(("asked", "option"), [("json", ""), ("pretty", "json"), ("info,json", "")])
def test_a_form_is_chosen_by_option_or_variable(asked: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_LOG", asked)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with logging_to_stderr(option or None):
        logging.getLogger("shop").warning("low")
    assert json.loads(sys.stderr.getvalue())["message"] == "low"


def test_lines_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    record = logging.makeLogRecord({"msg": "low\x1b", "levelname": "WARNING", "name": "shop", "shelf": 7, "exc_text": "X"})
    line, thrown = Pretty().format(record).splitlines()
    assert line[13:] == "WARNING  shop: low\\x1b  shelf=7"
    assert thrown == "X"
