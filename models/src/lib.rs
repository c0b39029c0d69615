//! Specs, checkpoint names and one readable file a model family.
