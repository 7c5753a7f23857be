"""Calculators: what a model costs before it runs, in FLOP, bytes, seconds and money."""
