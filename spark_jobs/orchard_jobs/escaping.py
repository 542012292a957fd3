"""Text of users in messages: keys, labels, file names and what libraries say of them. It moves no cursor and makes no line."""

import logging


def escaped(text: str, kept: str = "") -> str:
    """Return a text in which control characters and whatever else no terminal shows are escaped, as `\\n` or `\\x1b`.

    Args:
        text: any text, also one with surrogates, which stand for bytes of a name that is not UTF-8.
        kept: characters that stay as they are.
    """
    return "".join(char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text)


def escaping_logger(name: str) -> logging.Logger:
    """Return the logger of a module, whose lines show each argument escaped."""
    log = logging.getLogger(name)
    log.addFilter(_escape_arguments)
    return log


def _escape_arguments(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(escaped(str(one)) if isinstance(one, str | BaseException) else one for one in record.args)
    return True
