"""The API over real sockets: one chain, one journal and one server for the whole folder."""
