"""docs/install.md, done to the letter on a fresh Debian (`make install-check`)."""
