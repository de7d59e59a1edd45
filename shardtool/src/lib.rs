//! Shards: the on-disk format, its reader and writer.
