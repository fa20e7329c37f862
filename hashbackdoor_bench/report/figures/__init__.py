"""The figures of a paper, from collected records."""
