"""What a worker tells of itself while it follows a source: metrics, health, and the address that tells both."""
