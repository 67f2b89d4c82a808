"""From sources to the book: execute, check, compare, scoreboard, sweeps, the ``reproduce`` command.

The press reads chapters and knows nothing of their mathematics.
"""
