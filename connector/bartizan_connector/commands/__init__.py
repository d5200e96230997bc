"""The connector's sub-commands, one file each."""
