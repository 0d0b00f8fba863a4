"""DECISIONS: pure machines. `now` in, decisions out: no clock, no await, no lock, no log. Siblings never import each other."""
