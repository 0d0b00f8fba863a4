"""BREAKING: the application under virtual time, and killed at the named places of its commit path."""
