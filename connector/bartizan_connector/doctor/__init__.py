"""What `bartizan doctor` looks at."""
