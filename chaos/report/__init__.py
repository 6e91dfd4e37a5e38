"""Telling people what a run found."""
