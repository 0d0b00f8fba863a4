"""VALUES: what travels between the rooms. Imports nothing of ours and does no IO."""
