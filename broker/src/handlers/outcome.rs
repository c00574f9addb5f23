//! The error of an answer, for the metrics: the top-level one, else the first of its parts.
