"""PEOPLE at a terminal: one module a command, imported when it is used."""
