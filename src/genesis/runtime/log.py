"""The logger of the runtime."""

import logging

log = logging.getLogger("genesis")
