"""Numbers about a model. Nothing is drawn here."""
