"""Socket.io: the library's server, for clients of protocol revision 4, and a translation for those of revision 3."""
