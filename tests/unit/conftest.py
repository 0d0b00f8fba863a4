"""Tests written as coroutines run in virtual time: nothing here waits for a real second, and a hang is an error at once."""

import asyncio
import inspect

import pytest

from genesis.chaos.loop import VirtualLoop


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(test(**arguments))
    return True
