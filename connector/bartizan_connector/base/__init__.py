"""What every room stands on: errors, tables, the terminal, durable writing."""
