"""Data loading: which stage makes a training loop wait, how that stage's time goes, and what would mend it."""
