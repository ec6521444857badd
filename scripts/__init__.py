"""The command and the scripts around it."""
