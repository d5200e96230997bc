"""Documents from a program, without a file: put, delete, get, count, scan, search and drop, on every back-end."""
