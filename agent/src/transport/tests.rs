//! The transport against a server that answers whatever a test tells it to.
