//! The window: HTTP for health, metrics and the JSON API. Reads images and metrics; changes things as any client would.
