"""Ways to make the stages of a suite: processes of this machine, or tasks of a Ray cluster."""
