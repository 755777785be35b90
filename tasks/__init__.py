"""One file per task: which fields it reads and the document it builds from them."""
