"""What a commit leaves behind that did not come to its end: files of deletions that no commit names.

Such a file has the very name of the next one for its segment, which then cannot be written, for ever. A commit without
any change clears it away.
"""

import json
from pathlib import Path


def left_behind(folder: Path) -> list[Path]:
    """The files of deletions (`<segment>.<number>.del`) that `meta.json` does not name; all where it is unreadable."""
    files = list(folder.glob("*.del"))
    if not files:
        return []
    try:
        segments = json.loads((folder / "meta.json").read_bytes())["segments"]
        named = {
            f"{segment['segment_id'].replace('-', '')}.{segment['deletes']['opstamp']}.del"
            for segment in segments
            if segment["deletes"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return files
    return [file for file in files if file.name not in named]
