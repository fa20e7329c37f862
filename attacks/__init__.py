"""One file per attack; reached through the registry only, never by a dotted name."""
