"""The command line: parse, call one workflow function, print, exit code."""

from pipeline.cli.main import main

__all__ = ["main"]
