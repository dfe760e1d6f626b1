"""Measurements, run by hand or by `make bench`; figures go to the reader, never into an assertion."""
