"""Load generators: raw protocols under uvloop in a process of their own, so that their cost is not the server's."""
