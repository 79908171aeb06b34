"""The command line: parse, call one workflow function, print, exit code."""

from pipeline.cli.entry import main

__all__ = ["main"]
