//! The one table of settings and the typed configuration made from it, validated once.
