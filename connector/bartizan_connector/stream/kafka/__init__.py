"""A topic as a source: records in, committed by hand once they are stored, dead letters to a topic beside it"""
