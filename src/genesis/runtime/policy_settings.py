"""Settings of policies from outside of the code: `[policy.NAME]` of the file, and `GENESIS_POLICY_NAME_*` variables over it.

In: a table, variables, and the policies that there are. Out: the changes of each, with the place of each value. What names no
policy or no setting, or does not fit, is an error that says where it stands; then nothing is changed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from genesis.core.errors import SettingsError
from genesis.layers.mitigation.settings import MEANINGS, PolicySettings
from genesis.runtime.own_settings import Given, Origin, Row
from genesis.runtime.policy import Policy

PREFIX = "GENESIS_POLICY_"
KINDS: dict[str, type] = {one.name: type(one.default) for one in fields(PolicySettings)}
FITTING = {int: "a whole number", float: "a number", bool: "true or false"}
SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
"""How a setting that is true or false is written in a variable."""
Changes = dict[str, tuple[Any, Origin]]
"""Values by setting, with their places."""


def variable_of(policy: str, setting: str) -> str:
    """``("pricing-eu", "attempts")`` -> ``GENESIS_POLICY_PRICING_EU_ATTEMPTS``."""
    return PREFIX + re.sub(r"\W", "_", f"{policy}_{setting}").upper()


def tune(given: Given, policies: Sequence[Policy]) -> None:
    """Change the settings of policies as it is given. Raises SettingsError, and then nothing has changed."""
    found = changes_of(given, policies)
    for policy in policies:
        if changes := found.get(policy.name):
            policy.update(**{name: value for name, (value, _) in changes.items()})


def rows_of(given: Given, policies: Sequence[Policy], *, every: bool) -> list[Row]:
    """Settings as they are in force: all of them, or those that are not the default. Raises SettingsError."""
    found, plain = changes_of(given, policies), PolicySettings()
    rows = []
    for policy in {policy.name: policy for policy in policies}.values():
        changes = found.get(policy.name, {})
        for name, meaning in MEANINGS.items():
            before, default = getattr(policy.settings, name), getattr(plain, name)
            value, origin = changes.get(name, (before, Origin() if before == default else Origin("code")))
            if every or origin != Origin():
                rows.append(Row(f"policy.{policy.name}.{name}", value, origin, meaning))
    return rows


def changes_of(given: Given, policies: Sequence[Policy]) -> dict[str, Changes]:
    """What is given for each policy, by its name. Raises SettingsError."""
    found: dict[str, Changes] = {}
    for source in (_from_file(given, policies), _from_variables(given.variables, policies)):
        for name, setting, value, origin in source:
            found.setdefault(name, {})[setting] = value, origin
    for policy in policies:
        _check(policy, found.get(policy.name, {}))
    return found


def _check(policy: Policy, changes: Changes) -> None:
    try:
        policy.settings.changed(**{name: value for name, (value, _) in changes.items()})
    except SettingsError as error:
        named = [str(origin) for name, (_, origin) in changes.items() if re.search(rf"\b{name}\b", error.what)]
        raise SettingsError(f"policy.{policy.name}: {error.what}", origin=", ".join(named)) from None


def _from_file(given: Given, policies: Sequence[Policy]) -> Iterator[tuple[str, str, Any, Origin]]:
    names = [policy.name for policy in policies]
    for policy, table in given.table.items():
        place = given.place((policy,))
        if policy not in names:
            raise SettingsError(f"there is no policy {policy!r}{_meant(policy, names)}", origin=str(place))
        if not isinstance(table, dict):
            raise SettingsError(f"policy.{policy} is {table!r}: a table", origin=str(place))
        for setting, value in table.items():
            place = given.place((policy, setting))
            if setting not in KINDS:
                meant = _meant(setting, list(KINDS))
                raise SettingsError(f"unknown setting policy.{policy}.{setting}{meant}", origin=str(place))
            kind = KINDS[setting]
            fits = type(value) is kind or (kind is float and type(value) is int)  # 10 is a number of seconds too
            if not fits:
                raise SettingsError(f"policy.{policy}.{setting} is {value!r}: {FITTING[kind]}", origin=str(place))
            yield policy, setting, kind(value), place


def _from_variables(given: Mapping[str, str], policies: Sequence[Policy]) -> Iterator[tuple[str, str, Any, Origin]]:
    known: dict[str, list[tuple[str, str]]] = {}
    for name in dict.fromkeys(policy.name for policy in policies) if given else ():
        for setting in KINDS:
            known.setdefault(variable_of(name, setting), []).append((name, setting))
    for variable, text in given.items():
        if variable not in known:
            names = [policy.name for policy in policies]
            what = _meant(variable, list(known)) if known else _meant("", names)
            raise SettingsError(f"unknown setting {variable}{what}", origin=variable)
        if len(known[variable]) > 1:
            both = " and ".join(name for name, _ in known[variable])
            raise SettingsError(f"{variable} would be of the policies {both}: write it into the file", origin=variable)
        policy_name, setting = known[variable][0]
        kind = KINDS[setting]
        try:
            value = SWITCH[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise SettingsError(f"{variable} is {text!r}: {FITTING[kind]}", origin=variable) from None
        yield policy_name, setting, value, Origin(variable)


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if known else ": the code makes no policies"
