"""The dialect of thethings.iO: apps whose users read and write things, and the things themselves."""
