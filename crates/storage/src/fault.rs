//! A store that fails on purpose, for tests: seeded errors, latency and lost replies.
