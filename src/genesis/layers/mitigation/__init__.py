"""MITIGATION: it is failing now: limit the damage."""
