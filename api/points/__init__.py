"""Points in files and streams: formats, and moving them between stores."""
