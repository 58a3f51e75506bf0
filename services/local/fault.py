"""The one error that a user of these tools sees."""


class Fault(Exception):
    """Something outside the program is wrong: one line that says what, and what to do about it."""
