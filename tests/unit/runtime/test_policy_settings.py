"""Settings of policies in genesis.toml and in variables: they reach the policies, or say where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from genesis import App, Context, Policy, Settings, SettingsError, on
from tests.unit.runtime.support import Job


@pytest.fixture
def policy() -> Policy:
    return Policy("tuned-pricing", attempts=4)


def read(tmp_path: Path, text: str, **variables: str) -> Settings:
    (tmp_path / "genesis.toml").write_text(text)
    return Settings.load(file=tmp_path / "genesis.toml", environment=variables)


async def test_an_app_that_starts_tunes_its_policies_by_variable_over_file_over_code(policy: Policy, tmp_path: Path) -> None:
    app = App("shop")

    @app.component
    class Till:
        @on(Job)
        async def price(self, job: Job, ctx: Context) -> None: ...

    text = "[policy.tuned-pricing]\nfailure_threshold = 3\nwindow_s = 5\nessential = false\n"
    variables = {"GENESIS_POLICY_TUNED_PRICING_FAILURE_THRESHOLD": "2", "GENESIS_POLICY_TUNED_PRICING_ESSENTIAL": "yes"}
    settings = read(tmp_path, text, **variables)
    rows = {row.name: (row.value, str(row.origin)) for row in settings.policy_rows(every=False)}
    file = tmp_path / "genesis.toml"
    assert rows["policy.tuned-pricing.failure_threshold"] == (2.0, "GENESIS_POLICY_TUNED_PRICING_FAILURE_THRESHOLD")
    assert rows["policy.tuned-pricing.window_s"] == (5.0, f"{file}:3")
    assert rows["policy.tuned-pricing.attempts"] == (4, "code")
    assert "policy.tuned-pricing.probes" not in rows
    assert policy.settings.window_s == 60.0, "nothing has started"
    async with app.simulate(settings=settings):
        found = policy.settings
        assert (found.failure_threshold, found.window_s, found.essential, found.attempts) == (2.0, 5.0, True, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[policy.tuned-pricin]\nattempts = 3",
            "genesis.toml:1: there is no policy 'tuned-pricin'; did you mean tuned-pricing?",
        ),
        ("[policy]\ntuned-pricing = 3", "genesis.toml:2: policy.tuned-pricing is 3: a table"),
        (
            "[policy.tuned-pricing]\nattempt = 3",
            "genesis.toml:2: unknown setting policy.tuned-pricing.attempt; did you mean attempts?",
        ),
        ("[policy.tuned-pricing]\nattempts = 1.5", "genesis.toml:2: policy.tuned-pricing.attempts is 1.5: a whole number"),
        ("[policy.tuned-pricing]\nattempts = 0", "genesis.toml:2: policy.tuned-pricing: attempts is 0: at least 1"),
        ("[policy.tuned-pricing]\nessential = 1", "genesis.toml:2: policy.tuned-pricing.essential is 1: true or false"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place_and_changes_nothing(
    text: str, said: str, policy: Policy, tmp_path: Path
) -> None:
    settings, before = read(tmp_path, text), policy.settings
    with pytest.raises(SettingsError) as caught:
        settings.tune_policies()
    assert said in str(caught.value)
    assert policy.settings == before


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("GENESIS_POLICY_TUNED_PRICING_ATTEMPT", "3", "did you mean GENESIS_POLICY_TUNED_PRICING_ATTEMPTS?"),
        ("GENESIS_POLICY_TUNED_PRICING_ATTEMPTS", "many", "a whole number"),
        ("GENESIS_POLICY_TUNED_PRICING_ESSENTIAL", "2", "true or false"),
    ],
)
def test_a_variable_that_does_not_fit_is_named(variable: str, text: str, said: str, policy: Policy) -> None:
    settings = Settings.from_environment({variable: text})
    with pytest.raises(SettingsError) as caught:
        settings.tune_policies()
    assert variable in str(caught.value)
    assert said in str(caught.value)
