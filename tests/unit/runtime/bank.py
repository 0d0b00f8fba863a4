"""A bank that is asked: accounts, and the questions about them."""

from __future__ import annotations

import asyncio

from genesis import App, Context, Reject, Request, Retry, State, on


class Account(State):
    cents: int = 0


class Pay(Request[int], type="account.pay"):
    """Adds, and answers the balance."""

    key: str = "a"
    cents: int = 0
    takes_s: float = 0.0


class Balance(Request[int], type="account.balance"):
    key: str = "a"


class Chain(Request[list[str]], type="chain"):
    """Asks the names after the first, one after the other; each answers with those who answered it."""

    names: list[str]
    key: str = "a"


class Through(Request[list[str]], type="chain.through"):
    """The same, through a stateless component."""

    names: list[str]


class Nothing(Request[None], type="nothing"):
    pass


def bank() -> tuple[App, type, list[float]]:
    app, calls = App("bank"), list[float]()

    @app.component(key="key", state=Account, retry=Retry(attempts=3, base_s=0.5))
    class Accounts:
        @on(Pay, timeout=None)
        async def pay(self, pay: Pay, account: Account, ctx: Context) -> int:
            calls.append(ctx.now())
            await asyncio.sleep(pay.takes_s)
            if pay.cents < -1000:
                raise Reject("too much")
            if pay.cents < 0 and ctx.attempt < 3:
                raise ConnectionError
            account.cents += pay.cents
            return account.cents

        @on(Balance, read_only=True)
        async def balance(self, query: Balance, account: Account, ctx: Context) -> int:
            return account.cents

    return app, Accounts, calls
