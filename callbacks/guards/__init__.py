"""What ends a run, in order and with a sentence."""
