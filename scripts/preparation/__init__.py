"""Reads published data sets in the layout they come in: one file per data set, each with a `Recipe`."""
