"""One file per defense; reached through the registry only, never by a dotted name."""
