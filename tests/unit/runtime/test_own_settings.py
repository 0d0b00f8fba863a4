"""The application's own settings: filled from `[app]` and `GENESIS_APP_*`, checked key by key, with their origins."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from genesis import App, Context, DefinitionError, Module, SettingsError, on
from genesis.runtime.own_settings import Given
from tests.unit.runtime.support import Job


class Limits(msgspec.Struct, frozen=True, rename="kebab"):
    per_day: Annotated[int, msgspec.Meta(ge=1, description="Orders of one customer.")] = 5


class Shop(msgspec.Struct, frozen=True):
    currency: Literal["EUR", "USD"] = "EUR"
    fee: float = 0.5
    skus: list[str] = []
    folder: Path = Path("stock")
    owner: str | None = None
    express: bool = False
    limits: Limits = Limits()


class Billing(msgspec.Struct, frozen=True):
    token: str


def filled(given: Given, *, module: bool = False) -> Any:
    app, billing = App("shop"), Module("billing")
    app.settings(Shop)
    billing.settings(Billing)
    if module:
        app.include(billing)
    return app.own_settings().fill(given)


FILE = Given({"fee": 1, "limits": {"per-day": 9}}, {}, "genesis.toml", {("fee",): 4, ("limits", "per-day"): 7})


def test_a_table_and_variables_stand_over_the_defaults_and_each_value_knows_its_origin() -> None:
    variables = {
        "GENESIS_APP_CURRENCY": "USD",
        "GENESIS_APP_SKUS": '["tea", "cup"]',
        "GENESIS_APP_FOLDER": "/srv/stock",
        "GENESIS_APP_OWNER": "7",
        "GENESIS_APP_EXPRESS": "true",
        "GENESIS_APP_LIMITS_PER_DAY": "8",
    }
    instances, rows = filled(Given(FILE.table, variables, FILE.file, FILE.lines))
    assert instances == {Shop: Shop("USD", 1.0, ["tea", "cup"], Path("/srv/stock"), "7", True, Limits(8))}
    assert {row.name: str(row.origin) for row in rows} == {
        "app.currency": "GENESIS_APP_CURRENCY",
        "app.fee": "genesis.toml:4",
        "app.skus": "GENESIS_APP_SKUS",
        "app.folder": "GENESIS_APP_FOLDER",
        "app.owner": "GENESIS_APP_OWNER",
        "app.express": "GENESIS_APP_EXPRESS",
        "app.limits.per-day": "GENESIS_APP_LIMITS_PER_DAY",
    }
    assert {row.name: row.meaning for row in rows}["app.limits.per-day"] == "Orders of one customer."


def test_nothing_given_means_the_defaults() -> None:
    instances, rows = filled(Given())
    assert instances == {Shop: Shop()}
    assert {str(row.origin) for row in rows} == {"default"}


def test_what_is_missing_is_said_with_all_ways_to_give_it() -> None:
    with pytest.raises(SettingsError) as found:
        filled(Given(), module=True)
    said = "app.billing.token is missing: write it under [app.billing], or set GENESIS_APP_BILLING_TOKEN"
    assert str(found.value) == f"{said} (in a test: resources={{Billing: Billing(...)}})"
    instances, _ = filled(Given(variables={"GENESIS_APP_BILLING_TOKEN": "x"}), module=True)
    assert instances[Billing] == Billing("x")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fees": 1}, "genesis.toml:3: unknown setting app.fees; did you mean fee?"),
        ({"zzz": 1}, "genesis.toml:3: unknown setting app.zzz; shop has currency, express, fee, folder, limits, owner, skus"),
        ({"fee": "dear"}, "genesis.toml:3: app.fee is 'dear': expected `float`, got `str`"),
        ({"fee": True}, "genesis.toml:3: app.fee is True: expected `float`, got `bool`"),
        ({"limits": 5}, "genesis.toml:3: app.limits is 5: a table"),
        ({"limits": {"per-day": 0}}, "genesis.toml: app.limits.per-day is 0: expected `int` >= 1"),
        ({"limits": {"per_day": 1}}, "genesis.toml: unknown setting app.limits.per_day; did you mean per-day?"),
        ({"currency": "GBP"}, "genesis.toml:3: app.currency is 'GBP': invalid enum value 'GBP'"),
    ],
)
def test_what_does_not_fit_names_its_place_its_key_and_what_fits(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as found:
        filled(Given(given, {}, "genesis.toml", {(name,): 3 for name in given}))
    assert str(found.value) == said


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("FEES", "1", "unknown setting GENESIS_APP_FEES; did you mean GENESIS_APP_FEE?"),
        ("FEE", "dear", "GENESIS_APP_FEE is 'dear': expected `float`, got `str`"),
        ("SKUS", "[1]", "GENESIS_APP_SKUS is '[1]': expected `str`, got `int` - at `$[0]`"),
        ("SKUS", "tea", "GENESIS_APP_SKUS is 'tea': expected `array`, got `str`"),
        ("EXPRESS", "maybe", "GENESIS_APP_EXPRESS is 'maybe': expected `bool`, got `str`"),
    ],
)
def test_variables_that_do_not_fit_are_named(variable: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as found:
        filled(Given(variables={f"GENESIS_APP_{variable}": text}))
    assert str(found.value) == said


def test_an_application_without_settings_takes_none() -> None:
    with pytest.raises(SettingsError, match=re.escape("unknown setting app.fee: shop has no class under @app.settings")):
        App("shop").own_settings().fill(FILE)
    with pytest.raises(SettingsError, match=r"unknown setting GENESIS_APP_FEE: shop has no class under @app.settings"):
        App("shop").own_settings().fill(Given(variables={"GENESIS_APP_FEE": "1"}))


def test_a_class_that_checks_itself_is_heard() -> None:
    app = App("shop")

    @app.settings
    class Window(msgspec.Struct):
        opens: int = 9
        closes: int = 17

        def __post_init__(self) -> None:
            if self.opens >= self.closes:
                raise ValueError("it closes before it opens")

    with pytest.raises(SettingsError, match=re.escape("genesis.toml: [app] does not fit: it closes before it opens")):
        app.own_settings().fill(Given({"opens": 20}, {}, "genesis.toml"))


# --- what is written wrong ------------------------------------------------------------------------------------------


class Plain:
    fee = 1


def test_settings_are_a_struct() -> None:
    wrong: Any = Plain
    with pytest.raises(
        DefinitionError, match=r"test_own_settings.py:\d+: Plain is no msgspec.Struct\n    write: class Plain\("
    ):
        App("shop").settings(wrong)


def test_two_classes_for_one_section_name_each_other() -> None:
    app = App("shop")
    app.settings(Shop)
    app.settings(Billing)
    with pytest.raises(DefinitionError, match=r"test_own_settings.py:\d+: Billing and Shop are both for \[app\]; .* at .*:\d+"):
        app.own_settings()


def test_a_field_with_the_name_of_a_module_is_refused() -> None:
    app, limits = App("shop"), Module("limits")
    app.settings(Shop)
    limits.settings(Billing)
    app.include(limits)
    with pytest.raises(DefinitionError, match="the module limits has settings of its own, and Shop has a field of that name"):
        app.own_settings()


def test_two_keys_of_one_variable_are_refused() -> None:
    app = App("shop")

    @app.settings
    class Twice(msgspec.Struct):
        limits: Limits = Limits()
        limits_per_day: int = 1

    with pytest.raises(
        DefinitionError, match=re.escape("app.limits_per_day and app.limits.per-day would both be GENESIS_APP_")
    ):
        app.own_settings()


def test_settings_and_a_resource_of_one_type_are_two_providers() -> None:
    app = App("shop")
    app.settings(Shop)

    @app.resource
    async def shop() -> AsyncIterator[Shop]:
        yield Shop()

    @app.component
    class Doing:
        @on(Job)
        async def job(self, job: Job, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match=r"test_own_settings.py:\d+: shop provides Shop, and so do the settings"):
        app.definition()


@pytest.mark.parametrize("asked", [Shop, Limits])
def test_components_are_given_the_whole_by_its_type(asked: type) -> None:
    app = App("shop")
    app.settings(Shop)

    @app.component
    class Asking:
        def __init__(self, shop: asked) -> None: ...  # type: ignore[valid-type]

        @on(Job)
        async def job(self, job: Job, ctx: Context) -> None: ...

    if asked is Shop:
        app.definition()
    else:
        with pytest.raises(DefinitionError, match="asks for shop: Limits, and nobody provides one"):
            app.definition()
