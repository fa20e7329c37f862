"""One file per hashing method; reached through the registry only, never by a dotted name."""
