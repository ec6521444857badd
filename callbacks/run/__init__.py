"""The run folder: what is saved, when, and how a run goes on from it."""
