"""The demo page: what it shows, and how."""
