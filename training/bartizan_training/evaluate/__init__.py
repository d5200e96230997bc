"""How well towers find what a judged collection says is right."""
