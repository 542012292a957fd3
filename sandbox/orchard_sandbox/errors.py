"""The sandbox's one error: a line for the user that says what, where, and the next step."""


class SandboxError(Exception):
    """Something that the user can act on; the command line prints it without a traceback and exits with 1."""
