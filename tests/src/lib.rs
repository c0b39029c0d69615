//! Filetests, golden cases, properties and tidy.
