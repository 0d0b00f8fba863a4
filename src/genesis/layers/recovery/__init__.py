"""RECOVERY: bring it back, lose nothing."""
