"""Text from outside (file names, events, manifests) made safe to show."""

import unicodedata

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that move the cursor, reorder the line, break it, or cannot be encoded."""

_JOINERS = frozenset({"\u200c", "\u200d"})
"""Part of ordinary words in some scripts, and of emoji."""


def printable(text: str) -> str:
    r"""Return `text` with control characters and undecodable bytes as escapes, such as ``\x1b``; the rest as it is."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _INVISIBLE and character not in _JOINERS
        else character
        for character in text
    )


def encodable(text: str) -> str:
    r"""Return `text` with undecodable bytes of file names and arguments as escapes, such as ``\udce9``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(count: int, noun: str) -> str:
    """Return the number and its noun: "1 frame", "2 frames"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
