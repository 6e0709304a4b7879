"""The APIs through which clients ask, each in its own words."""
