"""Measuring and explaining: hardware, cost, the step clock, captures, the ledger. Runs on a bare machine with torch."""
