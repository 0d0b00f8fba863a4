"""``python -m genesis``."""

from genesis.cli.main import main

main()
