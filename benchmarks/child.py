"""One side of one run, in a process of its own: ``python -m benchmarks.child MODULE FUNCTION ARGUMENTS``.

Imports only what the function needs. Every side gets the same treatment of the interpreter: threads take turns as under
`genesis run`, and the garbage collector stays as Python sets it.
"""

import json
import sys
import types
from importlib import import_module


def main() -> None:
    module, name, arguments = sys.argv[1:]
    sys.setswitchinterval(1e-4)
    result = getattr(import_module(module), name)(**json.loads(arguments))
    if isinstance(result, types.CoroutineType):
        import asyncio  # not at the top: a side without it does not pay for it

        result = asyncio.run(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
