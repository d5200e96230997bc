"""An address as it may be shown: without the user and the password that may stand in it."""

import re


def without_password(text: str) -> str:
    """The text, be it one address or a message that holds some, with everything between `://` and the last `@` gone."""
    return re.sub(r"://\S*@", "://", text)
