"""The record of a run: one JSON object a line, one line an event, integer nanoseconds."""
