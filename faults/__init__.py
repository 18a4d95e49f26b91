"""Faults that a run must survive, caused on purpose: ``python -m faults`` (``make faults``).

Each experiment works in a copy of the project with the sample log and ``conf/smoke``, and says what
was expected, what was seen, and how often. None of it runs in CI.
"""
