"""Measurements that anyone can repeat: each script leaves a dated result beside the facts about its machine."""
