"""Apps, the people who use them, and what these may see: everything of an app lies under its own hash tag."""
