"""``cbam100 explain``: where a model looks."""
