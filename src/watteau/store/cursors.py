"""Where the next page begins, as text that clients give back and need not read."""

import base64
import binascii

from watteau.store.rows import MOST_ID


def cursor_after(key: int) -> str:
    """The cursor of a page whose last row has this key."""
    return base64.urlsafe_b64encode(f"before:{key}".encode()).decode().rstrip("=")


def key_of(cursor: str | None) -> int | None:
    """The key that a cursor stands for; None: the first page. Raises ValueError for one that is not ours."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        word, _, digits = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(":")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("the cursor is not one that a page gave") from error
    if word != "before" or not digits.isdecimal() or len(digits) > 19 or not 0 < int(digits) <= MOST_ID:
        raise ValueError("the cursor is not one that a page gave")
    return int(digits)
