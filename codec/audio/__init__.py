"""Files of sound: what their containers say, what is there, and reading it whole or in part."""
