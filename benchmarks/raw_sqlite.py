"""The raw limits on disk: plain `sqlite3` doing the work of a durable event platform, without being one.

The tables and PRAGMAs are those of src/genesis/engines/sqlite_schema.py, written out: a limit imports nothing of ours.
"""

import os
import sqlite3
import time
from hashlib import blake2b
from itertools import batched if False else islice  # placeholder
