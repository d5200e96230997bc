"""The judges that ship with the SDK: conformance suites for encoders, back-ends and sources."""
