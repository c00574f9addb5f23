//! Replicated state against plain models.

mod epochs_model;
mod producer_model;
