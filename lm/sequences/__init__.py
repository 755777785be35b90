"""Text and audio as one sequence of ids: vocabulary, patterns, documents, packed rows."""
