"""Servers that run as processes of this machine, for the demo and for tests: a Kafka broker, a Milvus server"""
