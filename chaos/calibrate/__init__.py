"""Calibration: known defects of real systems, each of which the harness must find.

A harness that finds nothing proves nothing until it has been seen to find what is there. Each
scenario brings an unmodified program into the state in which a known defect shows, records a
history as every run does, and lets the ordinary checkers judge it. No check here knows the defect.
"""
