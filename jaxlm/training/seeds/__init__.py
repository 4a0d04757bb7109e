"""Several seeds of one config, trained by one program: each becomes an ordinary run in a directory of its own."""
