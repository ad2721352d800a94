//! test-fleet
