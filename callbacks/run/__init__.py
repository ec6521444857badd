"""The run folder: what is saved and when, and how a run resumes from it."""
