"""Callbacks that end a run, or report, when something is wrong."""
