"""Snapshots measured on benchmarks: sampling, the report, its statistics, behaviour words."""
