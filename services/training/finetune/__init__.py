"""Fine-tuning of the small model on approved sessions, as a Ray job."""
