"""An experiment, from seeds to verdict to figure."""
