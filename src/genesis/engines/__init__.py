"""OUTSIDE: stores that keep what a commit holds, all or nothing, under the epoch of its owner."""
