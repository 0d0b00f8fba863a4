"""WAITING: asyncio starts here. Drives the machines of `layers` over an engine."""
