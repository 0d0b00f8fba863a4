import os
import signal

import pytest
from click.testing import CliRunner

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
            "genesis: GENESIS_LOG is 'warn': one of debug, info, warning, error; did you mean 'warning'?\n",
        ),
        ({"GENESIS_SLOT": "3"}, "genesis: unknown setting GENESIS_SLOT; did you mean GENESIS_SLOTS?\n"),
        ({"GENESIS_SLOTS": "many"}, "genesis: GENESIS_SLOTS is 'many': a whole number\n"),
        ({"GENESIS_CRASH": "here"}, "genesis: GENESIS_CRASH is 'here': POINT:N"),
    ],
)
def test_settings_that_do_not_fit_exit_3(variables: dict[str, str], said: str) -> None:
    result = CliRunner(env=variables).invoke(main, ["run", "shop:app"])
    assert result.exit_code == 3
    assert result.stderr.startswith(said)
