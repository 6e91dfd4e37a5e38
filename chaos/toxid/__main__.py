"""``python -m chaos.toxid``: ``chaos toxid`` without what other commands of chaos import."""

from chaos.toxid.cli import toxid

toxid(prog_name="chaos toxid")
