"""How results look, as text and as HTML: pure functions from a result to a string. No plotting, no script, no network."""
