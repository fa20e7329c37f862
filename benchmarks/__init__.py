"""Suites of runs (TOML) and the performance benchmarks."""
