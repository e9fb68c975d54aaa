//! Whether a compiler sees a difference between two versions of a file.
